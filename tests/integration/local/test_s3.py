"""The local S3 store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from banditmesh.local.process import DidNotStart
from banditmesh.local.s3 import S3
from tests.support.servers import BUCKET


def test_it_keeps_what_it_acknowledged_over_a_kill_and_stops_without_a_trace(tmp_path: Path) -> None:
    with S3(tmp_path) as s3:
        s3.create_bucket("models")
        client = s3.client()
        for i in range(20):
            client.put_object(Bucket="models", Key=f"version-{i}", Body=b"tensors")
        s3.kill()
        s3.start()
        listed = client.list_objects_v2(Bucket="models")["Contents"]
        assert len(listed) == 20
        assert client.get_object(Bucket="models", Key="version-7")["Body"].read() == b"tensors"
        client.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(s3.pid, 0)


def test_it_creates_an_object_only_if_it_is_not_there(s3: S3) -> None:
    client = s3.client()
    client.put_object(Bucket=BUCKET, Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=BUCKET, Key="once", Body=b"second", IfNoneMatch="*")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    client.close()


def test_it_replaces_an_object_only_if_it_is_the_one_that_was_read(s3: S3) -> None:
    client = s3.client()
    read = client.put_object(Bucket=BUCKET, Key="pointer", Body=b"1")["ETag"]
    client.put_object(Bucket=BUCKET, Key="pointer", Body=b"2", IfMatch=read)
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=BUCKET, Key="pointer", Body=b"3", IfMatch=read)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    client.close()


def test_a_bucket_may_be_created_again(s3: S3) -> None:
    s3.create_bucket(BUCKET)


def test_it_has_its_buckets_again_whatever_credentials_are_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with S3(tmp_path) as s3:
        s3.create_bucket("models")
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    with S3(tmp_path) as s3:
        s3.create_bucket("models")


def test_a_stranger_is_refused(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("banditmesh.local.s3.SECRET_KEY", "guessed")
    client = s3.client()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket=BUCKET)
    client.close()


def test_a_port_that_was_asked_for_and_is_taken_is_named(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match=f"address already in use: 127.0.0.1:{s3.ports[0]}"):
        S3(tmp_path, ports_wanted=s3.ports).start()
