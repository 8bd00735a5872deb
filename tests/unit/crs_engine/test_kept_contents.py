"""What an engine keeps of the fallbacks' contents, round by round."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.contracts.provider.v1.provider_pb2 import Content
from banditmesh.runtime import packing
from banditmesh.runtime.clock import ManualClock
from services.crs_engine.catalog import Catalog, Fetched
from services.crs_engine.kept_contents import EVERY_S, KeptContents

KEYS = np.array([hashing.content_key("films", "alien")], np.uint64)


def known(clock: ManualClock, title: str | None) -> Catalog:
    """A catalog that has the content by this title; None: of which Redis says that there is none."""
    value = None
    if title is not None:
        value = packing.pack_content("films", Content(content_id="alien", title=title).SerializeToString())
    catalog = Catalog(10, [])
    catalog.put([Fetched(int(KEYS[0]), value)], clock.monotonic_s(), clock.now_s())
    return catalog


async def test_what_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "full").touch()
    path = tmp_path / "full" / "contents"
    kept = KeptContents(path, known(clock, "Alien"), clock)
    await kept.keep(KEYS)
    (tmp_path / "full").unlink()
    await clock.advance(EVERY_S)
    await kept.keep(KEYS)
    assert path.exists()


async def test_what_is_gone_since_a_restart_is_kept_no_longer(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "contents"
    await KeptContents(path, known(clock, "Alien"), clock).keep(KEYS)
    assert path.read_bytes()
    catalog = Catalog(10, [])
    restarted = KeptContents(path, catalog, clock)
    await restarted.restore()
    catalog.put([Fetched(int(KEYS[0]), None)], clock.monotonic_s(), clock.now_s())
    await restarted.keep(KEYS)
    assert not path.read_bytes()


async def test_while_nothing_is_known_what_was_kept_stays(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "contents"
    await KeptContents(path, known(clock, "Alien"), clock).keep(KEYS)
    before = path.read_bytes()
    await KeptContents(path, Catalog(10, []), clock).keep(KEYS)
    assert path.read_bytes() == before
