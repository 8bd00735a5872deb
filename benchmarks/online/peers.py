"""Vowpal Wabbit on the same rows: its explorations at a few settings each, with the crosses of context and action."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import vowpalwabbit

FAMILIES: Final = {
    "cover": ("--cover 3", "--cover 16 --nounif"),
    "softmax": ("--softmax --lambda 5", "--softmax --lambda 20"),
    "squarecb": ("--squarecb --gamma_scale 30", "--squarecb --gamma_scale 300"),
    "epsilon": ("--epsilon 0.02", "--epsilon 0.1"),
}


def rewards(rows: Iterable[Mapping[str, Any]], options: str, seed: int) -> list[float]:
    """What it earns, decision by decision, in one pass over rows of full information."""
    vw = vowpalwabbit.Workspace(f"--cb_explore_adf {options} -q ca --quiet --random_seed {seed}")
    rng = np.random.default_rng(seed)
    earned = []
    for row in rows:
        context = {**row.get("context", {}), **({"user": row["user"]} if "user" in row else {})}
        shared = f"shared |c {_features(context)}"
        actions = [f"|a id={each['id']} {_features(each.get('features', {}))}" for each in row["candidates"]]
        chances = np.array(vw.predict([shared, *actions]))
        pick = int(rng.choice(len(actions), p=chances / chances.sum()))
        reward = float(row["candidates"][pick]["reward"])
        earned.append(reward)
        actions[pick] = f"0:{-reward}:{chances[pick]} {actions[pick]}"
        vw.learn([shared, *actions])
    vw.finish()
    return earned


def _features(given: Mapping[str, Any]) -> str:
    written = []
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        written += [f"{name}={each}" if isinstance(each, str) else f"{name}:{each}" for each in values]
    return " ".join(each.replace(" ", "_").replace("|", "_") for each in written)
