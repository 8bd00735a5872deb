"""Learning and scoring in one process on one core, in turns with the peers.

Against Vowpal Wabbit (`--cb_explore_adf --epsilon 0.05 -q ca`): decisions between 20 candidates, 10 categories of the
context and 10 of each candidate, the same exploration on both sides; VW's examples are parsed beforehand, ours hashed.
VW takes one decision at a time, ours go in batches of 64, which is how the engine and the learner have them; one at a
time stands beside it. Against MABWiser's LinUCB: 30 arms, 16 features; both in batches, and both one at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import vowpalwabbit
from mabwiser.mab import MAB, LearningPolicy

from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.exploration.choice import choose
from banditmesh.bandits.hashing import categorical_id, key64, numeric_id
from banditmesh.bandits.registry import build, build_exploration
from benchmarks.learning.figure import Figure

DECISIONS, CANDIDATES, FIELDS, LEVELS = 512, 20, 10, 1000
ARMS, DIMENSION = 30, 16
BATCH = 64
ROUNDS = 5


def run(scratch: Path, data: Path) -> Iterator[Figure]:
    """See the module."""
    yield from against_vw()
    yield from against_mabwiser()


def against_vw() -> Iterator[Figure]:
    """Decisions scored and learned from, a second."""
    rng = np.random.default_rng(0)
    context = rng.integers(LEVELS, size=(DECISIONS, FIELDS))
    own = rng.integers(LEVELS, size=(DECISIONS, CANDIDATES, FIELDS))
    picks, rewards = rng.integers(CANDIDATES, size=DECISIONS), rng.random(DECISIONS).round()
    vw: Any = vowpalwabbit.Workspace("--cb_explore_adf --epsilon 0.05 -q ca --quiet -b 22")
    score, learn = [], []
    for decision in range(DECISIONS):
        shared = "shared |c " + " ".join(f"c{field}={value}" for field, value in enumerate(context[decision]))
        actions = ["|a " + " ".join(f"a{field}={value}" for field, value in enumerate(row)) for row in own[decision]]
        score.append(vw.parse("\n".join([shared, *actions])))
        pick = int(picks[decision])
        actions[pick] = f"0:{-rewards[decision]}:{1 / CANDIDATES} {actions[pick]}"
        learn.append(vw.parse("\n".join([shared, *actions])))
    theirs = {
        "score": lambda: [vw.predict(each) for each in score],
        "learn": lambda: [vw.learn(each) for each in learn],
    }
    theirs["learn"]()  # an empty model is quicker to ask
    for name, size in (("linear", BATCH), ("fm", BATCH), ("linear", 1)):
        policy, exploration = build(name), build_exploration("epsilon_greedy", {"epsilon": 0.05})
        batches = [decisions(context[at], own[at], picks[at], rewards[at]) for at in _parts(size)]

        def score_all(policy: Any = policy, exploration: Any = exploration, batches: Any = batches) -> None:
            for candidates, _ in batches:
                chances = exploration.probabilities(policy.score(candidates), candidates.offsets)
                choose(chances, candidates.offsets, rng)

        def learn_all(policy: Any = policy, batches: Any = batches) -> None:
            for _, examples in batches:
                policy.learn(examples)

        learn_all()
        for what, ours in (("score", score_all), ("learn", learn_all)):
            mine, peer = seconds([ours, theirs[what]])
            label = f"{what}: {name} in batches of {size}"
            met = peer >= 5 * mine if (name, size) == ("linear", BATCH) else None
            yield Figure("speed", f"{label}, decisions a second", DECISIONS / mine, f"VW: {DECISIONS / peer:.0f}")
            yield Figure("speed", f"{label}, as a multiple of VW", peer / mine, ">= 5" if met is not None else "", met)
    for example in (*score, *learn):
        vw.finish_example(example)
    vw.finish()


def against_mabwiser() -> Iterator[Figure]:
    """LinUCB's decisions a second, scored and learned from."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(DECISIONS, DIMENSION))
    picks, rewards = rng.integers(ARMS, size=DECISIONS), rng.random(DECISIONS).round()
    ids = np.array([numeric_id(f"x{n}") for n in range(DIMENSION)], np.uint32)
    arms = np.array([key64(str(arm)) for arm in range(ARMS)], np.uint64)
    for size in (BATCH, 1):
        peer = MAB(list(range(ARMS)), LearningPolicy.LinUCB(alpha=1.0))
        peer.fit(picks, rewards, x)
        policy = build("linucb", {"dense": [f"x{n}" for n in range(DIMENSION)]})
        exploration = build_exploration("ucb", {"alpha": 1.0})
        batches = []
        for at in _parts(size):
            n = at.stop - at.start
            rows = SparseRows(np.arange(n + 1) * DIMENSION, np.tile(ids, n), x[at].astype(np.float32).ravel())
            keys = np.tile(arms, n)
            candidates = Candidates(np.arange(n + 1) * ARMS, keys, keys, keys, rows, SparseRows.empty(n * ARMS))
            batches.append((candidates, _examples(arms[picks[at]], rows, rewards[at])))

        def ours(policy: Any = policy, exploration: Any = exploration, batches: Any = batches) -> None:
            for candidates, examples in batches:
                chances = exploration.probabilities(policy.score(candidates), candidates.offsets)
                choose(chances, candidates.offsets, rng)
                policy.learn(examples)

        def theirs(peer: Any = peer, size: int = size) -> None:
            for at in _parts(size):
                peer.predict(x[at])
                peer.partial_fit(picks[at], rewards[at], x[at])

        mine, other = seconds([ours, theirs])
        label = f"score and learn: linucb in batches of {size}"
        yield Figure("speed", f"{label}, decisions a second", DECISIONS / mine, f"MABWiser: {DECISIONS / other:.0f}")
        yield Figure("speed", f"{label}, as a multiple of MABWiser", other / mine, ">= 20", other >= 20 * mine)


def decisions(
    context: np.ndarray, own: np.ndarray, picks: np.ndarray, rewards: np.ndarray
) -> tuple[Candidates, Examples]:
    """n decisions of int[n, FIELDS] and int[n, CANDIDATES, FIELDS] categories."""
    n = len(context)
    shared = _rows("c", context)
    features = _rows("a", own.reshape(-1, FIELDS))
    keys = own[:, :, 0].ravel().astype(np.uint64)
    offsets = np.arange(n + 1) * CANDIDATES
    flat = offsets[:-1] + picks
    candidates = Candidates(offsets, keys, keys, keys, shared, features)
    return candidates, _examples(keys[flat], shared.beside(features.take(flat)), rewards)


def seconds(functions: list[Callable[[], object]]) -> list[float]:
    """CPU seconds of one call of each, the median of rounds in which they take turns."""
    spent: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, times in zip(functions, spent, strict=True):
            started = time.process_time()
            function()
            times.append(time.process_time() - started)
    return [float(np.median(times)) for times in spent]


def _rows(side: str, categories: np.ndarray) -> SparseRows:
    names = [[categorical_id(f"{side}{field}", str(level)) for level in range(LEVELS)] for field in range(FIELDS)]
    ids = np.array(names, np.uint32)[np.arange(FIELDS), categories]
    return SparseRows(np.arange(len(ids) + 1) * FIELDS, ids.ravel(), np.ones(ids.size, np.float32))


def _examples(keys: np.ndarray, features: SparseRows, rewards: np.ndarray) -> Examples:
    n = len(keys)
    given = rewards.astype(np.float32)
    return Examples(keys, keys, keys, features, given, np.full(n, 0.05, np.float32), np.zeros(n), given > 0)


def _parts(size: int) -> list[slice]:
    return [slice(start, min(start + size, DECISIONS)) for start in range(0, DECISIONS, size)]
