"""What can go wrong between us and a bucket."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from banditmesh.local import ports
from banditmesh.local.s3 import S3
from banditmesh.runtime.addresses import S3Address
from banditmesh.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from banditmesh.runtime.store.s3 import S3Store
from tests.support.lossy_proxy import LossyProxy
from tests.support.servers import BUCKET


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@asynccontextmanager
async def opened(endpoint: str, prefix: str, *, bucket: str = BUCKET, page_keys: int = 1000) -> AsyncIterator[S3Store]:
    store = S3Store(S3Address(bucket, prefix, endpoint, "us-east-1"), page_keys=page_keys)
    try:
        yield store
    finally:
        await store.close()


async def test_an_endpoint_that_is_away_is_named_with_the_bucket(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    nobody = f"http://127.0.0.1:{ports.free(1)[0]}"
    async with opened(nobody, prefix) as store:
        with pytest.raises(Unavailable) as away:
            await store.get("key")
    assert nobody in away.value.message
    assert BUCKET in away.value.message
    assert away.value.retry_after_s is not None


async def test_a_missing_bucket_is_named_and_the_hint_says_what_to_do(s3: S3, prefix: str) -> None:
    async with opened(s3.endpoint, prefix, bucket="nobody-made-it") as store:
        for attempt in (store.get("key"), store.ping()):
            with pytest.raises(FailedPrecondition) as missing:
                await attempt
            assert "nobody-made-it" in missing.value.message
            assert missing.value.hint is not None


async def test_wrong_credentials_are_denied(s3: S3, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    async with opened(s3.endpoint, prefix) as store:
        for attempt in (store.put_new("key", b""), store.get("key"), store.ping()):
            with pytest.raises(PermissionDenied):
                await attempt


async def test_missing_credentials_are_denied_with_the_variables_to_set(
    s3: S3, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in s3.env:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with opened(s3.endpoint, prefix) as store:
        with pytest.raises(PermissionDenied, match="AWS_ACCESS_KEY_ID"):
            await store.get("key")


async def test_a_create_whose_answer_was_lost_still_knows_that_it_won(s3: S3, prefix: str) -> None:
    async with LossyProxy(s3.ports[0], lose_answers=1) as proxy, opened(proxy.endpoint, prefix) as store:
        etag = await store.put_new("key", b"mine")
        assert proxy.lost == 1
        assert await store.get("key") == (b"mine", etag)


async def test_a_replace_whose_answer_was_lost_still_knows_that_it_won(s3: S3, prefix: str) -> None:
    async with opened(s3.endpoint, prefix) as direct:
        first = await direct.put_new("key", b"1")
    async with LossyProxy(s3.ports[0], lose_answers=1) as proxy, opened(proxy.endpoint, prefix) as store:
        second = await store.replace("key", b"2", first)
        assert proxy.lost == 1
        assert await store.get("key") == (b"2", second)


async def test_a_lost_answer_does_not_make_a_loser_win(s3: S3, prefix: str) -> None:
    async with opened(s3.endpoint, prefix) as rival:
        etag = await rival.put_new("key", b"same bytes")
        await rival.replace("key", b"theirs", etag)
    async with LossyProxy(s3.ports[0], lose_answers=1) as proxy, opened(proxy.endpoint, prefix) as store:
        with pytest.raises(AlreadyExists):
            await store.put_new("key", b"theirs")
    async with LossyProxy(s3.ports[0], lose_answers=1) as proxy, opened(proxy.endpoint, prefix) as store:
        with pytest.raises(Aborted):
            await store.replace("key", b"theirs", etag)


async def test_a_writer_that_dies_in_the_middle_leaves_no_object(s3: S3, prefix: str) -> None:
    async with LossyProxy(s3.ports[0], request_bytes=1_000_000) as proxy, opened(proxy.endpoint, prefix) as store:
        with pytest.raises(Unavailable):
            await store.put_new("key", bytes(3_000_000))
        assert proxy.lost > 0
    async with opened(s3.endpoint, prefix) as store:
        with pytest.raises(NotFound):
            await store.get("key")
        assert [key async for key in store.list()] == []
        await store.put_new("key", b"whole")


async def test_a_long_list_comes_page_by_page(s3: S3, prefix: str) -> None:
    async with opened(s3.endpoint, prefix, page_keys=2) as store:
        names = [f"{number:02d}" for number in range(5)]
        for name in names:
            await store.put_new(name, b"")
        assert [key async for key in store.list()] == names
