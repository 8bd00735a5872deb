"""What a placement pays, read out of ``mesh.yaml`` by the oracle itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

KINDS = ("mute", "target", "click", "dwell")
"""The kinds of reaction, the strongest first where ``precedence`` does not say otherwise."""
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


@dataclass(frozen=True)
class Rules:
    """A placement's rewards and its join window."""

    window_ms: int
    click: float = 1.0
    none: float = 0.5
    mute: float = 0.0
    dwell: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    precedence: tuple[str, ...] = KINDS
    cap: float | None = None

    @property
    def limit(self) -> float:
        """Rewards are clipped to it: the cap, or ten times the largest that is configured."""
        if self.cap is not None:
            return self.cap
        amounts = (self.click, self.none, self.mute, self.dwell or 0.0, *self.targets.values())
        return 10 * max(abs(each) for each in amounts)


def rules_of(mesh_yaml: str) -> dict[str, Rules]:
    """The rules of every placement."""
    mesh: dict[str, Any] = yaml.safe_load(mesh_yaml)
    window = mesh.get("join", {}).get("window", "10m")
    return {name: _rules(placement, window) for name, placement in mesh["placements"].items()}


def _rules(placement: Mapping[str, Any], window: str) -> Rules:
    rewards = dict(placement.get("rewards", {}))
    first = tuple(rewards.pop("precedence", ()))
    order = (*first, *(kind for kind in KINDS if kind not in first))
    return Rules(milliseconds(placement.get("join_window", window)), precedence=order, **rewards)


def milliseconds(duration: str | float) -> int:
    """A duration of ``mesh.yaml``: ``300ms``, ``3s``, ``10m``, ``1h``, or a number of seconds."""
    if isinstance(duration, int | float):
        return round(duration * 1000)
    match = re.fullmatch(r"([\d.]+)(ms|s|m|h)", duration)
    if match is None:
        raise ValueError(f"{duration!r} is no duration that the oracle knows")
    return round(float(match[1]) * _UNITS_MS[match[2]])
