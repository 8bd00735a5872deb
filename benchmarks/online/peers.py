"""Vowpal Wabbit on the same rows: its explorations at a few settings each, with the crosses of context and action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import vowpalwabbit

FAMILIES: Final = {
    "cover": ("--cover 3", "--cover 16 --nounif"),
    "softmax": ("--softmax --lambda 5", "--softmax --lambda 20"),
    "squarecb": ("--squarecb --gamma_scale 30", "--squarecb --gamma_scale 300"),
    "epsilon": ("--epsilon 0.02", "--epsilon 0.1"),
}


def written(row: Mapping[str, Any]) -> list[str]:
    """A row of full information as VW reads it: what its actions share, then each action."""
    context = {**row.get("context", {}), **({"user": row["user"]} if "user" in row else {})}
    actions = [f"|a id={each['id']} {_features(each.get('features', {}))}" for each in row["candidates"]]
    return [f"shared |c {_features(context)}", *actions]


def picks(rows: Sequence[Mapping[str, Any]], texts: Sequence[Sequence[str]], options: str, seed: int) -> list[int]:
    """What it picks, decision by decision, in one pass. texts: as `written` of each row."""
    vw = vowpalwabbit.Workspace(f"--cb_explore_adf {options} -q ca --quiet --random_seed {seed}")
    rng = np.random.default_rng(seed)
    picked = []
    for row, (shared, *actions) in zip(rows, texts, strict=True):
        chances = np.array(vw.predict([shared, *actions]))
        pick = int(rng.choice(len(actions), p=chances / chances.sum()))
        picked.append(pick)
        actions[pick] = f"0:{-float(row['candidates'][pick]['reward'])}:{chances[pick]} {actions[pick]}"
        vw.learn([shared, *actions])
    vw.finish()
    return picked


def _features(given: Mapping[str, Any]) -> str:
    written = []
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        written += [f"{name}={each}" if isinstance(each, str) else f"{name}:{each}" for each in values]
    return " ".join(each.replace(" ", "_").replace("|", "_") for each in written)
