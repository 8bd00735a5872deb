"""A bucket (or a prefix of it) as an object store, by boto3.

boto3 is synchronous; its calls run in threads, a bounded number at a time. Cancelling an await does not recall a
request that is on its way: a cancelled write may have happened. So it is with one that has not ended by its deadline:
boto3's own timeouts are for the next byte, and a server may send one now and then for ever.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from banditmesh.runtime.addresses import S3Address
from banditmesh.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    Internal,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from banditmesh.runtime.store import StoredObject
from banditmesh.runtime.store.durable import appearing
from banditmesh.runtime.store.keys import valid_key, valid_prefix

THREADS = 8
CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 2.0, 10.0, 3
DEADLINE_S = 35.0
"""Of a request with all its attempts; a body has the time that it takes at :data:`SLOWEST_BYTES_PER_S` beside it."""
SLOWEST_BYTES_PER_S = 100_000
RIGHTS = {"ListObjectsV2": "s3:ListBucket", "HeadObject": "s3:GetObject"}
"""What a policy calls the right to an operation, where it is not the operation's name."""
UNCHANGED, LOST_A_RACE = 304, (409, 412)
"""412: the condition does not hold. 409: AWS is just deciding between us and another conditional write of the key."""

T = TypeVar("T")


class S3Store:
    """See :class:`~banditmesh.runtime.store.Store`. Objects are written by single requests, so at most 5 GiB each."""

    def __init__(self, address: S3Address, *, page_keys: int = 1000, deadline_s: float = DEADLINE_S) -> None:
        """``page_keys``: how many keys :meth:`list` asks for at a time (1000 is the protocol's most)."""
        self._address = address
        self._prefix = f"{address.prefix}/" if address.prefix else ""
        self._page_keys = page_keys
        self._deadline_s = deadline_s
        self._free = asyncio.Semaphore(THREADS)
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=address.endpoint,
            region_name=address.region,
            verify=None if address.ca_file is None else str(address.ca_file),
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                max_pool_connections=THREADS,
                # Few S3-protocol servers know virtual hosts, or AWS's checksum trailers.
                s3={"addressing_style": _style(address)},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    @property
    def location(self) -> str:
        return str(self._address)

    async def put_new(self, key: str, body: bytes) -> str:
        return await self._run(key, lambda name: self._put_new(name, key, body), len(body))

    async def upload_new(self, key: str, path: Path) -> str:
        def upload(name: str) -> str:
            with path.open("rb") as file:
                return self._put_new(name, key, file)

        return await self._run(key, upload, (await asyncio.to_thread(path.stat)).st_size)

    async def replace(self, key: str, body: bytes, etag: str) -> str:
        def compare_and_put(name: str) -> str:
            try:
                return self._put_marked(name, body, IfMatch=etag)
            except ClientError as error:
                if _status(error) in LOST_A_RACE or _is_missing_key(error):
                    raise Aborted(
                        "the object has been changed by somebody else", field="key", value=key, hint="read it again"
                    ) from error
                raise

        return await self._run(key, compare_and_put, len(body))

    async def put(self, key: str, body: bytes) -> str:
        def put(name: str) -> str:
            return self._etag(self._client.put_object(Bucket=self._address.bucket, Key=name, Body=body))

        return await self._run(key, put, len(body))

    async def get(self, key: str) -> StoredObject:
        return await self._read(key, await self._run(key, self._get))

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        def get(name: str) -> Any:
            try:
                return self._get(name, IfNoneMatch=etag)
            except ClientError as error:
                if _status(error) == UNCHANGED:
                    return None
                raise

        answer = await self._run(key, get)
        return None if answer is None else await self._read(key, answer)

    async def download(self, key: str, path: Path) -> str:
        def stream() -> str:
            with closing(answer["Body"]) as body, appearing(path) as file:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    file.write(chunk)
            return self._etag(answer)

        answer = await self._run(key, self._get)
        return await self._in_thread(key, stream, answer["ContentLength"])

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        full_prefix = self._prefix + valid_prefix(prefix)
        following: dict[str, Any] = {}

        def fetch() -> Any:
            return self._client.list_objects_v2(
                Bucket=self._address.bucket, Prefix=full_prefix, MaxKeys=self._page_keys, **following
            )

        while True:
            page = self._listing(await self._in_thread("", fetch))
            for each in page.get("Contents", ()):
                yield each["Key"].removeprefix(self._prefix)
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, key: str) -> None:
        await self._run(key, lambda name: self._client.delete_object(Bucket=self._address.bucket, Key=name))

    async def ping(self) -> None:
        # Not HeadBucket: its errors have no body, and so do not tell a missing bucket from a missing route.
        bucket, prefix = self._address.bucket, self._prefix
        self._listing(
            await self._in_thread("", lambda: self._client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1))
        )

    async def close(self) -> None:
        self._client.close()

    def _get(self, name: str, **condition: Any) -> Any:
        return self._client.get_object(Bucket=self._address.bucket, Key=name, **condition)

    async def _read(self, key: str, answer: Any) -> StoredObject:
        def read() -> StoredObject:
            with closing(answer["Body"]) as body:
                return StoredObject(body.read(), self._etag(answer))

        return await self._in_thread(key, read, answer["ContentLength"])

    def _etag(self, answer: Any) -> str:
        if "ETag" not in answer:
            raise self._no_s3()
        return str(answer["ETag"])

    def _listing(self, answer: Any) -> Any:
        if "IsTruncated" not in answer and "Name" not in answer:
            raise self._no_s3()
        return answer

    def _no_s3(self) -> FailedPrecondition:
        return FailedPrecondition(
            f"{self.location} answers, and not by the S3 protocol",
            hint="another server listens there: see --store, BANDITMESH_STORE",
            dependency="store",
        )

    def _put_new(self, name: str, key: str, body: bytes | BinaryIO) -> str:
        try:
            return self._put_marked(name, body, IfNoneMatch="*")
        except ClientError as error:
            if _status(error) in LOST_A_RACE:
                raise AlreadyExists(f"the object is in {self.location} already", field="key", value=key) from error
            raise

    def _put_marked(self, name: str, body: bytes | BinaryIO, **condition: Any) -> str:
        """A conditional put that knows its own object again: when the answer to the first attempt is lost, boto3's
        second attempt finds the condition broken by the first. Each put therefore carries a mark of its own."""
        mark = secrets.token_hex(16)
        try:
            answer = self._client.put_object(
                Bucket=self._address.bucket, Key=name, Body=body, Metadata={"writer": mark}, **condition
            )
        except ClientError as error:
            repeated = error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
            if repeated and _status(error) in LOST_A_RACE:
                there = self._client.head_object(Bucket=self._address.bucket, Key=name)
                if there["Metadata"].get("writer") == mark:
                    return self._etag(there)
            raise
        return self._etag(answer)

    async def _run(self, key: str, operation: Callable[[str], T], body_bytes: int = 0) -> T:
        """Run a blocking operation on the key's full name in a thread, its errors translated."""
        name = self._prefix + valid_key(key)
        return await self._in_thread(key, lambda: operation(name), body_bytes)

    async def _in_thread(self, key: str, operation: Callable[[], T], body_bytes: int = 0) -> T:
        within_s = self._deadline_s + body_bytes / SLOWEST_BYTES_PER_S
        try:
            async with self._free, asyncio.timeout(within_s):
                return await _beside(operation)
        except TimeoutError as error:
            raise Unavailable(
                f"{self.location} did not answer in full within {within_s:.3g} s",
                hint="see --store, BANDITMESH_STORE",
                retry_after_s=1.0,
                dependency="store",
            ) from error
        except (ClientError, BotoCoreError) as error:
            raise self._translated(error, key) from error

    def _translated(self, error: ClientError | BotoCoreError, key: str) -> MeshError:
        where = self.location
        if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            return PermissionDenied(
                f"no credentials for {where}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the process a role",
                dependency="store",
            )
        if isinstance(error, (BotoConnectionError, HTTPClientError, IncompleteReadError)):
            return Unavailable(
                f"{where} does not answer: {error}",
                hint="see --store, BANDITMESH_STORE",
                retry_after_s=1.0,
                dependency="store",
            )
        if not isinstance(error, ClientError):
            return Internal(f"{where}: {error}")
        code, status = error.response["Error"].get("Code", ""), _status(error)
        reason = error.response["Error"].get("Message") or code
        if code == "NoSuchBucket":
            return FailedPrecondition(
                f"there is no bucket {self._address.bucket!r} ({where})",
                hint="create it, or correct BANDITMESH_STORE",
                dependency="store",
            )
        if _is_missing_key(error):
            return NotFound(f"no such object in {where}", field="key", value=key)
        if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
            return FailedPrecondition(
                f"{where}: the bucket is in {_region(error) or 'another region'}, not in {self._address.region}",
                hint="set region=… in BANDITMESH_STORE, or AWS_REGION",
            )
        what = f"{error.operation_name} of {key or 'the bucket'}"
        if status in (401, 403) or code in ("ExpiredToken", "InvalidToken"):
            return PermissionDenied(
                f"{where} refuses {what}: {code}: {reason}",
                hint="check this machine's clock" if code == "RequestTimeTooSkewed" else _needed(error.operation_name),
                dependency="store",
            )
        if status == 501 or code == "NotImplemented":
            return FailedPrecondition(
                f"{where} does not know how to do {what}: {reason}",
                hint="the store must know conditional writes (If-None-Match, If-Match)",
            )
        if status >= 500 or status == 429:
            return Unavailable(
                f"{where} answers {' '.join(dict.fromkeys((str(status), code)))} to {what}: {reason}",
                hint="see --store, BANDITMESH_STORE",
                retry_after_s=1.0,
                dependency="store",
            )
        return Internal(f"{where} answers {status} {code}: {reason}")


def _beside(operation: Callable[[], T]) -> asyncio.Future[T]:
    """Run it in a thread of its own. Nobody waits for the thread: one that a server holds ends with the process."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[], None]) -> None:
        if not found.done():
            how()

    def run() -> None:
        try:
            result = operation()
        except BaseException as error:
            how = partial(found.set_exception, error)
        else:
            how = partial(found.set_result, result)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, how)

    threading.Thread(target=run, name="s3", daemon=True).start()
    return found


def _style(address: S3Address) -> str:
    if address.style == "auto":
        return "path" if address.endpoint else "auto"
    return address.style


def _region(error: ClientError) -> str | None:
    """Where the bucket is, if the answer tells."""
    headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    region: str | None = headers.get("x-amz-bucket-region") or error.response["Error"].get("Region")
    return region


def _needed(operation: str) -> str:
    """What would allow it."""
    right = RIGHTS.get(operation, f"s3:{operation}")
    needed = f"check the credentials, and that their policy and the bucket's allow {right}"
    if right != "s3:GetObject":
        return needed
    return f"{needed} (and s3:ListBucket: without it an object that is not there is refused as well)"


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))


def _is_missing_key(error: ClientError) -> bool:
    return error.response["Error"].get("Code") in ("NoSuchKey", "404")
