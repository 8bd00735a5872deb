"""Decisions of a placement as the archive has them, with a truth that the test knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from banditmesh.archive.layout import Folder, Range
from banditmesh.archive.parquet import encode
from banditmesh.archive.state import Mark, State, States
from banditmesh.runtime.store import Store

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
NAMES = ("news", "sport", "film", "music")
CLICKS = np.array([0.1, 0.2, 0.3, 0.6])
"""Of each content; `evening` users click half as often."""
MUTES = np.array([0.02, 0.02, 0.1, 0.2])
LOGGED = np.array([0.4, 0.3, 0.2, 0.1])
LOG = 0xD1D2D3D4


def shown_by(rng: np.random.Generator, chances: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """What ``n`` users were shown by a policy of these chances, and what they did: arrays by name."""
    evening = rng.random(n) < 0.5
    shown = rng.choice(len(NAMES), n, p=chances)
    clicked = rng.random(n) < CLICKS[shown] * np.where(evening, 0.5, 1.0)
    muted = rng.random(n) < MUTES[shown]
    rewards = np.where(muted, 0.0, np.where(clicked, 1.0, 0.5))
    return {"evening": evening, "shown": shown, "clicked": clicked, "muted": muted, "rewards": rewards}


def truth(chances: np.ndarray) -> dict[str, float]:
    """What a policy of these chances truly has."""
    clicks, mutes = 0.75 * CLICKS, MUTES
    rewards = (1 - mutes) * (clicks + 0.5 * (1 - clicks))
    return {
        "reward": float(chances @ rewards),
        "click_rate": float(chances @ clicks),
        "mute_rate": float(chances @ mutes),
    }


def rows(rng: np.random.Generator, n: int) -> list[dict[str, object]]:
    """Rows of a decision log."""
    found = shown_by(rng, LOGGED, n)
    return [
        {
            "t": NOON + timedelta(milliseconds=number),
            "user": f"u{number}",
            "context": {"time": "evening" if found["evening"][number] else "day"},
            "candidates": [
                {"id": name, "service": "press", "logic": "all", "features": {"kind": name}} for name in NAMES
            ],
            "shown": int(found["shown"][number]),
            "propensity": float(LOGGED[found["shown"][number]]),
            "reward": float(found["rewards"][number]),
            "reactions": ["click"] * bool(found["clicked"][number]) + ["mute"] * bool(found["muted"][number]),
        }
        for number in range(n)
    ]


async def archive(store: Store, placement: str, logged: list[dict[str, object]], *, first: int = 0) -> None:
    """Put rows into the archive, as one complete file; `first`: the offset that its range begins with."""
    end = first + len(logged)
    places = [{"decision_log": LOG, "decision_partition": 0, "decision_offset": at} for at in range(first, end)]
    table = pa.Table.from_pylist([{**row, **place} for row, place in zip(logged, places, strict=True)])
    times = table.column("t").cast(pa.timestamp("ms", "UTC"))
    table = table.set_column(table.schema.get_field_index("t"), "t", times)
    folder = Folder("decisions", placement, NOON)
    name = Range(LOG, 0, first, end).file_name("decisions")
    await store.put_new(folder.prefix + name, encode(table).to_pybytes())
    states = States(store, "decisions")
    held = await states.get(LOG, 0)
    await states.put(LOG, 0, (held.state if held else State()).begin(end, Mark(1000)).complete(), held)


def shown_list(rng: np.random.Generator, number: int, *, length: int) -> list[dict[str, object]]:
    """A ranked list that one user was shown, by the same chances without replacement: a row a position."""
    left, rows = list(range(len(NAMES))), []
    for position in range(length):
        chances = LOGGED[left] / LOGGED[left].sum()
        at = int(rng.choice(len(left), p=chances))
        content = left[at]
        clicked, muted = rng.random() < 0.75 * CLICKS[content], rng.random() < MUTES[content]
        rows.append(
            {
                "t": NOON.timestamp() + number / 1000,
                "user": f"u{number}",
                "position": position,
                "candidates": [
                    {"id": NAMES[each], "service": "press", "logic": "all", "features": {"kind": NAMES[each]}}
                    for each in left
                ],
                "shown": at,
                "propensity": float(chances[at]),
                "reward": 0.0 if muted else 1.0 if clicked else 0.5,
                "reactions": ["click"] * bool(clicked) + ["mute"] * bool(muted),
            }
        )
        left.pop(at)
    return rows
