"""``banditmesh inspect``."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.token import KeyRing

Run = Callable[..., Any]
KEYS, OTHER_KEYS = "1:" + 32 * "ab", "1:" + 32 * "cd"


def token(*, age_s: float = 1.0) -> str:
    decision = events_pb2.Decision(
        impression_id=16 * b"i", user_id="ada", placement="home", decided_at_ms=int(1000 * (time.time() - age_s))
    )
    return base64.b64encode(KeyRing.parse(KEYS).sign(decision)).decode()


def test_a_token_shows_its_decision_and_that_nobody_checked_it(run: Run) -> None:
    ended = run("inspect", token())
    assert ended.code == 0
    assert '"user_id": "ada"' in ended.out
    assert "signed with key 1" in ended.out
    assert "The signature was not checked" in ended.out


def test_with_the_right_keys_it_would_be_accepted(run: Run) -> None:
    ended = run("inspect", token(), "--keys", KEYS)
    assert ended.code == 0
    assert "it would be accepted" in ended.out


@pytest.mark.parametrize(("keys", "age_s"), [(OTHER_KEYS, 1.0), ("2:" + 32 * "ab", 1.0), (KEYS, 7200.0)])
def test_a_forged_or_foreign_or_old_token_would_be_refused(run: Run, keys: str, age_s: float) -> None:
    ended = run("inspect", token(age_s=age_s), "--keys", keys)
    assert ended.code == 1
    assert "It would be refused" in ended.out


@pytest.mark.parametrize(
    "text", ["no base64!", "AAAA", "AQEA", token()[4:]], ids=["no base64", "zeros", "head only", "beheaded"]
)
def test_what_is_no_token_is_said_to_be_none(run: Run, text: str) -> None:
    ended = run("inspect", text)
    assert ended.code == 2
    assert "this is no impression token" in ended.err


def test_the_keys_that_up_has_made_are_found(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".banditmesh").mkdir()
    (tmp_path / ".banditmesh" / "token-keys").write_text(KEYS + "\n")
    assert "it would be accepted" in run("inspect", token(), "--dir", str(tmp_path / ".banditmesh")).out
    monkeypatch.chdir(tmp_path)
    assert "it would be accepted" in run("inspect", token()).out
    assert run("inspect", token(), "--keys", OTHER_KEYS).code == 1  # what is said counts more


def test_wrong_keys_are_named_and_not_shown(run: Run) -> None:
    ended = run("inspect", token(), "--keys", "1:secret")
    assert ended.code == 2
    assert "secret" not in ended.err
