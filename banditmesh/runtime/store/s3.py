"""A bucket (or a prefix of it) as an object store, by boto3.

boto3 is synchronous; its calls run in a bounded pool of threads. Cancelling an await does not recall a request that is
on its way: a cancelled write may have happened.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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
RIGHTS = {"ListObjectsV2": "s3:ListBucket", "HeadObject": "s3:GetObject"}
"""What a policy calls the right to an operation, where it is not the operation's name."""
UNCHANGED, LOST_A_RACE = 304, (409, 412)
"""412: the condition does not hold. 409: AWS is just deciding between us and another conditional write of the key."""

T = TypeVar("T")


class S3Store:
    """See :class:`~banditmesh.runtime.store.Store`. Objects are written by single requests, so at most 5 GiB each."""

    def __init__(self, address: S3Address, *, page_keys: int = 1000) -> None:
        """``page_keys``: how many keys :meth:`list` asks for at a time (1000 is the protocol's most)."""
        self._address = address
        self._prefix = f"{address.prefix}/" if address.prefix else ""
        self._page_keys = page_keys
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
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
        return await self._run(key, lambda name: self._put_new(name, key, body))

    async def upload_new(self, key: str, path: Path) -> str:
        def upload(name: str) -> str:
            with path.open("rb") as file:
                return self._put_new(name, key, file)

        return await self._run(key, upload)

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

        return await self._run(key, compare_and_put)

    async def put(self, key: str, body: bytes) -> str:
        return await self._run(
            key, lambda name: self._client.put_object(Bucket=self._address.bucket, Key=name, Body=body)["ETag"]
        )

    async def get(self, key: str) -> StoredObject:
        return await self._run(key, self._get)

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        def get(name: str) -> StoredObject | None:
            try:
                return self._get(name, IfNoneMatch=etag)
            except ClientError as error:
                if _status(error) == UNCHANGED:
                    return None
                raise

        return await self._run(key, get)

    async def download(self, key: str, path: Path) -> str:
        def stream(name: str) -> str:
            answer = self._client.get_object(Bucket=self._address.bucket, Key=name)
            with closing(answer["Body"]) as body, appearing(path) as file:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    file.write(chunk)
            return str(answer["ETag"])

        return await self._run(key, stream)

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        full_prefix = self._prefix + valid_prefix(prefix)
        following: dict[str, Any] = {}

        def fetch() -> Any:
            return self._client.list_objects_v2(
                Bucket=self._address.bucket, Prefix=full_prefix, MaxKeys=self._page_keys, **following
            )

        while True:
            page = await self._in_thread("", fetch)
            for each in page.get("Contents", ()):
                yield each["Key"].removeprefix(self._prefix)
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, key: str) -> None:
        await self._run(key, lambda name: self._client.delete_object(Bucket=self._address.bucket, Key=name))

    async def ping(self) -> None:
        # Not HeadBucket: its errors have no body, and so do not tell a missing bucket from a missing route.
        await self._in_thread(
            "",
            lambda: self._client.list_objects_v2(Bucket=self._address.bucket, Prefix=self._prefix, MaxKeys=1),
        )

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _get(self, name: str, **condition: Any) -> StoredObject:
        answer = self._client.get_object(Bucket=self._address.bucket, Key=name, **condition)
        with closing(answer["Body"]) as body:
            return StoredObject(body.read(), answer["ETag"])

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
                    return str(there["ETag"])
            raise
        return str(answer["ETag"])

    async def _run(self, key: str, operation: Callable[[str], T]) -> T:
        """Run a blocking operation on the key's full name in a thread, its errors translated."""
        name = self._prefix + valid_key(key)
        return await self._in_thread(key, lambda: operation(name))

    async def _in_thread(self, key: str, operation: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, operation)
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
                f"{where} answers {status} {code} to {what}: {reason}", retry_after_s=1.0, dependency="store"
            )
        return Internal(f"{where} answers {status} {code}: {reason}")


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
