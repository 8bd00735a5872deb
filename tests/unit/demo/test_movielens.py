"""The ratings of the demo, fetched once whoever asks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from banditmesh.demo import movielens

_FILES = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t4\t881250949\n",
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "7\tKolya\t1996\tComedy\n",
    "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\n1\t24\tM\ttechnician\n",
}


def test_two_who_ask_at_once_fetch_once_and_both_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)
    fetched: list[Path] = []

    def fetch(folder: Path) -> None:
        fetched.append(folder)
        with suppress(threading.BrokenBarrierError):  # nobody else fetches
            together.wait(0.3)
        folder.mkdir(exist_ok=True)
        for name, text in _FILES.items():
            (folder / name).write_text(text)

    def ask(_: int) -> int:
        return len(movielens.movielens(tmp_path / "cache"))

    monkeypatch.setattr(movielens, "_fetch", fetch)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(2))) == [1, 1]
    assert len(fetched) == 1
    folder = tmp_path / "cache" / "ml-100k"
    assert folder.stat().st_mode == folder.parent.stat().st_mode  # as readable as what it lies in
