"""Learning and scoring in one process on one core, in turns with the peers.

Against Vowpal Wabbit (`--cb_explore_adf --epsilon 0.05 -q ca`): decisions between 20 candidates, 10 categories of the
context and 10 of each candidate, the same exploration on both sides; VW's examples are parsed beforehand, ours hashed.
VW takes one decision at a time, ours go in batches of 64, which is how the engine and the learner have them; one at a
time stands beside it. Mini-batches grow with what was seen: ours are timed over the first 3 000 examples or so, and
when they have learned from 20 480.

Against the LinUCB of MABWiser, and of Mab2Rec that stands on it: 30 arms, 16 features of the context, alpha 1, each
side given its own kind of batch; one decision at a time on both sides, and 64 on both. To score is to choose, with us
also to say the propensity. To learn is, with us, to add up: what scoring needs of it is derived when the arm is next
scored. So learning apart has no reference, and the two in turns, as a service does them, hold all the work.
"""

from __future__ import annotations

import importlib
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
LEARNED = 40 * DECISIONS
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
        mine, peer = seconds([learn_all, theirs["learn"]])
        label = f"learn: {name} in batches of {size}, from the first example on"
        met = peer >= 5 * mine if (name, size) == ("linear", BATCH) else None
        yield Figure("speed", f"{label}, as a multiple of VW", peer / mine, ">= 5" if met is not None else "", met)
        for _ in range(LEARNED // DECISIONS):
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
    """LinUCB's decisions a second, scored and learned from, apart and in turns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(DECISIONS, DIMENSION))
    picks, rewards = rng.integers(ARMS, size=DECISIONS), rng.random(DECISIONS).round()
    for size in (1, BATCH):
        parts = _parts(size)
        sides = {"banditmesh": (_ours(rng), [dense_decisions(x[at], picks[at], rewards[at]) for at in parts])}
        sides |= {name: (steps, [(x[at], picks[at], rewards[at]) for at in parts]) for name, steps in _peers().items()}
        for (_, learn), batches in sides.values():
            _in_turns([learn], batches)()  # an empty model is quicker to ask
        for what, steps in {"score": slice(0, 1), "learn": slice(1, 2), "score and learn": slice(0, 2)}.items():
            mine, *others = seconds([_in_turns(both[steps], batches) for both, batches in sides.values()])
            theirs = dict(zip(list(sides)[1:], others, strict=True))
            label = f"{what}: linucb in batches of {size}"
            told = ", ".join(f"{name}: {DECISIONS / other:.0f}" for name, other in theirs.items())
            yield Figure("speed", f"{label}, decisions a second", DECISIONS / mine, told)
            for name, other in theirs.items():
                met = None if what == "learn" else other >= 20 * mine
                reference = "" if met is None else ">= 20"
                yield Figure("speed", f"{label}, as a multiple of {name}", other / mine, reference, met)


Steps = list[Callable[[Any], object]]
"""How to score a batch, and how to learn from it."""


def _ours(rng: np.random.Generator) -> Steps:
    policy = build("linucb", {"dense": [f"x{n}" for n in range(DIMENSION)]})
    exploration = build_exploration("ucb", {"alpha": 1.0})

    def score(batch: tuple[Candidates, Examples]) -> None:
        offsets = batch[0].offsets
        choose(exploration.probabilities(policy.score(batch[0]), offsets), offsets, rng)

    return [score, lambda batch: policy.learn(batch[1])]


def _peers() -> dict[str, Steps]:
    """Batches are contexts, arms and rewards. Every arm is known beforehand, as each peer wants it."""
    arms, first = list(range(ARMS)), ([0], [0.0], np.zeros((1, DIMENSION)))
    mabwiser: Any = MAB(arms, LearningPolicy.LinUCB(alpha=1.0))
    asked = {"MABWiser": (mabwiser, mabwiser.predict)}
    try:
        mab2rec: Any = importlib.import_module("mab2rec").BanditRecommender(LearningPolicy.LinUCB(alpha=1.0), top_k=1)
    except ModuleNotFoundError:
        pass
    else:
        mab2rec.set_arms(arms)
        asked["Mab2Rec"] = (mab2rec, mab2rec.recommend)
    for peer, _ in asked.values():
        peer.fit(*first)
    return {name: [_of_contexts(ask), _of_rewards(peer)] for name, (peer, ask) in asked.items()}


def _of_contexts(ask: Callable[[np.ndarray], object]) -> Callable[[Any], object]:
    return lambda batch: ask(batch[0])


def _of_rewards(peer: Any) -> Callable[[Any], object]:
    return lambda batch: peer.partial_fit(batch[1], batch[2], batch[0])


def dense_decisions(x: np.ndarray, picks: np.ndarray, rewards: np.ndarray) -> tuple[Candidates, Examples]:
    """n decisions between all arms by contexts float[n, DIMENSION]."""
    n = len(x)
    ids = np.array([numeric_id(f"x{number}") for number in range(DIMENSION)], np.uint32)
    arms = np.array([key64(str(arm)) for arm in range(ARMS)], np.uint64)
    rows = SparseRows(np.arange(n + 1) * DIMENSION, np.tile(ids, n), x.astype(np.float32).ravel())
    keys = np.tile(arms, n)
    candidates = Candidates(np.arange(n + 1) * ARMS, keys, keys, keys, rows, SparseRows.empty(n * ARMS))
    return candidates, _examples(arms[picks], rows, rewards)


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


def _in_turns(steps: Steps, batches: list[Any]) -> Callable[[], None]:
    """Takes every step with a batch, then with the next."""

    def all_batches() -> None:
        for batch in batches:
            for step in steps:
                step(batch)

    return all_batches


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
