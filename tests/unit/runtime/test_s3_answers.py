"""What S3 may answer, and what is made of it: who was refused what, where the bucket really is, what to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

from banditmesh.runtime.addresses import S3Address, parse_store
from banditmesh.runtime.errors import FailedPrecondition, MeshError, PermissionDenied, Unavailable
from banditmesh.runtime.store.s3 import S3Store

BODY = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'


@contextmanager
def answering(
    status: int,
    code: str,
    message: str = "because",
    more: str = "",
    headers: dict[str, str] | None = None,
    body: str = BODY,
) -> Iterator[tuple[str, list[str]]]:
    """A server that gives every request this answer: its address, and the requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            asked.append(f"{self.command} {self.headers['Host']} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = body.format(code=code, message=message, more=more).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_PUT = do_HEAD = do_DELETE = handle_any  # the standard library's names

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)


async def refusal(endpoint: str, operation: str = "get") -> MeshError:
    store = S3Store(S3Address("models", "mesh", endpoint, "us-east-1"))
    try:
        calls = {
            "get": lambda: store.get("a/current.json"),
            "put_new": lambda: store.put_new("a/current.json", b"{}"),
            "ping": store.ping,
        }
        with pytest.raises(MeshError) as refused:
            await calls[operation]()
        return refused.value
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("operation", "what", "right"),
    [
        ("get", "GetObject of a/current.json", "allow s3:GetObject (and s3:ListBucket: without it"),
        ("put_new", "PutObject of a/current.json", "allow s3:PutObject"),
        ("ping", "ListObjectsV2 of", "allow s3:ListBucket"),
    ],
)
async def test_what_was_refused_is_said_and_which_right_would_allow_it(operation: str, what: str, right: str) -> None:
    with answering(403, "AccessDenied", "no such right") as (endpoint, _):
        error = await refusal(endpoint, operation)
    assert isinstance(error, PermissionDenied)
    assert f"refuses {what}" in error.message
    assert "AccessDenied: no such right" in error.message
    assert right in (error.hint or "")


async def test_a_clock_that_is_wrong_is_named() -> None:
    with answering(403, "RequestTimeTooSkewed", "the difference is too large") as (endpoint, _):
        assert "clock" in ((await refusal(endpoint)).hint or "")


async def test_credentials_that_have_expired_are_denied() -> None:
    with answering(400, "ExpiredToken", "the token has expired") as (endpoint, _):
        assert isinstance(await refusal(endpoint), PermissionDenied)


@pytest.mark.parametrize(
    ("status", "code", "more", "headers"),
    [
        (301, "PermanentRedirect", "", {"x-amz-bucket-region": "eu-west-1"}),
        (400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>", {}),
    ],
)
async def test_a_bucket_of_another_region_says_which(
    status: int, code: str, more: str, headers: dict[str, str]
) -> None:
    with answering(status, code, more=more, headers=headers) as (endpoint, _):
        error = await refusal(endpoint)
    assert isinstance(error, FailedPrecondition)
    assert "the bucket is in eu-west-1, not in us-east-1" in error.message
    assert "region=" in (error.hint or "")


async def test_a_store_without_conditional_writes_is_named_so() -> None:
    with answering(501, "NotImplemented", "A header you provided implies functionality") as (endpoint, _):
        error = await refusal(endpoint, "put_new")
    assert isinstance(error, FailedPrecondition)
    assert "conditional writes" in (error.hint or "")


async def test_a_store_that_is_overloaded_is_tried_again_later() -> None:
    with answering(503, "SlowDown", "reduce your rate") as (endpoint, asked):
        error = await refusal(endpoint)
    assert isinstance(error, Unavailable)
    assert error.retry_after_s
    assert "503 SlowDown to GetObject" in error.message
    assert len(asked) == 3  # boto3 has tried again by itself


@pytest.mark.parametrize(
    ("style", "path"), [("auto", "/models/mesh/a/current.json"), ("path", "/models/mesh/a/current.json")]
)
async def test_the_bucket_stands_in_the_path_at_an_endpoint_of_ones_own(style: str, path: str) -> None:
    with answering(403, "AccessDenied") as (endpoint, asked):
        store = S3Store(parse_store(f"s3://models/mesh?endpoint={endpoint}&style={style}"))  # type: ignore[arg-type]
        with pytest.raises(PermissionDenied):
            await store.get("a/current.json")
        await store.close()
    assert asked[0].endswith(path)


async def test_a_virtual_host_is_used_where_one_is_asked_for() -> None:
    store = S3Store(parse_store("s3://models/mesh?endpoint=http://nobody.invalid&style=virtual"))  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match=r"http://models\.nobody\.invalid/mesh/a/current\.json"):
        await store.get("a/current.json")
    await store.close()


def test_the_region_is_that_of_the_environment_unless_the_url_says_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-northeast-1")
    assert parse_store("s3://bucket").region == "ap-northeast-1"  # type: ignore[union-attr]
    assert parse_store("s3://bucket?region=eu-west-1").region == "eu-west-1"  # type: ignore[union-attr]


def test_an_authority_that_cannot_be_read_and_a_style_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        parse_store(f"s3://bucket?ca={tmp_path}/none.pem")
    with pytest.raises(ValueError, match="auto, path and virtual"):
        parse_store("s3://bucket?style=dns")
    (tmp_path / "ca.pem").touch()
    address = parse_store(f"s3://bucket/a?ca={tmp_path}/ca.pem&style=path")
    assert parse_store(str(address)) == address


@pytest.mark.parametrize("operation", ["get", "put_new", "ping"])
async def test_a_server_that_is_no_s3_is_not_taken_for_an_empty_one(operation: str) -> None:
    with answering(200, "", body="<html>It works!</html>") as (endpoint, _):
        error = await refusal(endpoint, operation)
    assert isinstance(error, FailedPrecondition)
    assert "not by the S3 protocol" in error.message
    assert "--store, BANDITMESH_STORE" in (error.hint or "")


@contextmanager
def stopping_after(sent: bytes) -> Iterator[str]:
    """A server that answers so much, and then nothing more for ever."""
    served = threading.Event()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.sendall(sent)
            served.wait()

    server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        served.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    "sent",
    [b"", b"HTTP/1.1 200 O", b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 9\r\n\r\nhalf'],
    ids=["nothing", "half a header", "half a body"],
)
async def test_an_answer_that_never_ends_has_a_deadline(sent: bytes) -> None:
    with stopping_after(sent) as endpoint:
        store = S3Store(S3Address("models", "mesh", endpoint, "us-east-1"), deadline_s=0.2)
        with pytest.raises(Unavailable, match=r"did not answer in full within 0\.2 s") as error:
            await store.get("a/current.json")
        await store.close()
    assert "--store, BANDITMESH_STORE" in (error.value.hint or "")
