"""Logged decisions whose true answer is known: many logs of each kind, all arrays float64[logs, rows]."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditmesh.ope.rows import Rows

Floats = NDArray[np.float64]
FOLDS = 5
_BLOCK = 32


@dataclass(frozen=True)
class Logs:
    """Logs of one kind.

    Attributes:
        rewards, propensities, targets, expected, predicted: as in `Rows`, float64[logs, rows].
        value: what the evaluated policy truly earns per decision.
    """

    rewards: Floats
    propensities: Floats
    targets: Floats
    expected: Floats
    predicted: Floats
    value: float

    def rows(self) -> Iterator[Rows]:
        """Log by log."""
        keys = np.arange(self.rewards.shape[1])
        for columns in zip(self.rewards, self.propensities, self.targets, self.expected, self.predicted, strict=True):
            yield Rows.checked(keys, *columns)


World = Callable[[np.random.Generator, int], Logs]
"""Makes so many logs."""


def arms(
    rows: int,
    rates: Sequence[float],
    logging: Sequence[float],
    target: Sequence[float],
    paid: Callable[[np.random.Generator, Floats], Floats] = lambda rng, clicks: clicks,
) -> World:
    """Arms without context. A click earns 1, or what `paid` makes of the clicks; it must keep their mean."""

    def world(rng: np.random.Generator, logs: int) -> Logs:
        means, chances, wanted = np.array(rates), np.array(logging), np.array(target)
        shown = rng.choice(len(means), (logs, rows), p=chances)
        rewards = paid(rng, (rng.random((logs, rows)) < means[shown]).astype(float))
        q = cross_fitted(shown, rewards, len(means))
        expected, predicted = q @ wanted, _of(q, shown)
        return Logs(rewards, chances[shown], wanted[shown], expected, predicted, float(wanted @ means))

    return world


def contexts(rows: int, logging: float, target: float, base: float, n_arms: int = 10, size: int = 5) -> World:
    """Arms with a context: both policies are softmaxes of linear scores, whose scales make the weights heavy.

    Args:
        rows: of each log.
        logging, target: the scale of the scores of either policy.
        base: log-odds of a click at the context 0.
        n_arms, size: of the problem.
    """
    fixed = np.random.default_rng(7)
    log_scores, target_scores, click_scores = (fixed.normal(size=(n_arms, size)) / size**0.5 for _ in range(3))

    def world(rng: np.random.Generator, logs: int) -> Logs:
        x = rng.normal(size=(logs, rows, size))
        chances, wanted = _softmax(logging * x @ log_scores.T), _softmax(target * x @ target_scores.T)
        clicks = 1 / (1 + np.exp(-base - x @ click_scores.T))
        shown = (rng.random((logs, rows, 1)) > chances.cumsum(axis=2)).sum(axis=2).clip(max=n_arms - 1)
        rewards = (rng.random((logs, rows)) < _of(clicks, shown)).astype(float)
        q = 0.5 * clicks + 0.5 * clicks.mean()  # a model that has learned half of what there is to learn
        expected = (wanted * q).sum(axis=2)
        everywhere = np.random.default_rng(8).normal(size=(200_000, size))
        value = (
            (_softmax(target * everywhere @ target_scores.T) / (1 + np.exp(-base - everywhere @ click_scores.T)))
            .sum(axis=1)
            .mean()
        )
        return Logs(rewards, _of(chances, shown), _of(wanted, shown), expected, _of(q, shown), float(value))

    return world


def learning(rows: int, rates: Sequence[float], target: Sequence[float], floor: float, *, thompson: bool) -> World:
    """A log that a policy wrote while it learned, by Thompson sampling or greedily with a falling exploration."""

    def world(rng: np.random.Generator, logs: int) -> Logs:
        means, wanted, every = np.array(rates), np.array(target), np.arange(logs)
        n = len(means)
        earned, counts = np.ones((logs, n)), np.full((logs, n), 2.0)
        shown, rewards, propensities = np.zeros((logs, rows), int), np.zeros((logs, rows)), np.zeros((logs, rows))
        for row in range(rows):
            belief = earned / counts
            if thompson:
                draws = rng.normal(size=(64, logs, n)) * np.sqrt(belief * (1 - belief) / counts) + belief
                best = (draws.argmax(axis=2)[..., None] == np.arange(n)).mean(axis=0)
                chances = floor + (1 - n * floor) * best
            else:
                chances = np.full((logs, n), max(floor, (row + 1) ** -0.5 / n))
                chances[every, belief.argmax(axis=1)] += 1 - chances.sum(axis=1)
            arm = (rng.random((logs, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=n - 1)
            reward = (rng.random(logs) < means[arm]).astype(float)
            shown[:, row], rewards[:, row], propensities[:, row] = arm, reward, chances[every, arm]
            earned[every, arm] += reward
            counts[every, arm] += 1
        q = cross_fitted(shown, rewards, n)
        return Logs(rewards, propensities, wanted[shown], q @ wanted, _of(q, shown), float(wanted @ means))

    return world


def cross_fitted(shown: NDArray[np.int64], rewards: Floats, n_arms: int) -> Floats:
    """float64[logs, rows, n_arms]: each arm's mean reward in the other folds, in blocks as `replay` deals them."""
    logs, rows = shown.shape
    folds = np.arange(rows) // _BLOCK % FOLDS
    found = np.zeros((logs, rows, n_arms))
    prior = rewards.mean(axis=1)
    for fold in range(FOLDS):
        others = folds != fold
        if not (~others).any():
            continue
        for arm in range(n_arms):
            there = (shown == arm) & others
            mean = ((rewards * there).sum(axis=1) + prior) / (there.sum(axis=1) + 1)
            found[:, ~others, arm] = mean[:, None]
    return found


def _of(values: Floats, shown: NDArray[np.int64]) -> Floats:
    found: Floats = np.take_along_axis(values, shown[..., None], axis=2)[..., 0]
    return found


def _softmax(scores: Floats) -> Floats:
    found: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return found / found.sum(axis=-1, keepdims=True)


def purchases(rng: np.random.Generator, clicks: Floats) -> Floats:
    """What a click earns is a price, lognormal with mean 1."""
    return clicks * rng.lognormal(-0.5, 1.0, clicks.shape)


RATES, RARE = (0.1, 0.3, 0.5, 0.8), (0.005, 0.01, 0.015, 0.02)
MILD, HEAVY = (0.4, 0.3, 0.2, 0.1), (0.97, 0.01, 0.01, 0.01)
TARGET = (0.1, 0.1, 0.2, 0.6)
CLOSE, UNIFORM = (0.3, 0.35, 0.4, 0.5), (0.25, 0.25, 0.25, 0.25)

WORLDS: dict[str, World] = {
    "mild, 2000 rows": arms(2000, RATES, MILD, TARGET),
    "mild, 500 rows": arms(500, RATES, MILD, TARGET),
    "mild, 100 rows": arms(100, RATES, MILD, TARGET),
    "clicks of 1 %, 500 rows": arms(500, RARE, MILD, TARGET),
    "clicks of 1 %, 2000 rows": arms(2000, RARE, MILD, TARGET),
    "clicks of 1 %, 10 000 rows": arms(10_000, RARE, MILD, TARGET),
    "prices, lognormal, 2000 rows": arms(2000, RATES, MILD, TARGET, purchases),
    "heavy, 500 rows": arms(500, RATES, HEAVY, TARGET),
    "heavy, 2000 rows": arms(2000, RATES, HEAVY, TARGET),
    "heavy, clicks of 1 %, 2000 rows": arms(2000, RARE, HEAVY, TARGET),
    "heavy, hardly ever seen, 500 rows": arms(500, RATES, (0.9994, 0.0002, 0.0002, 0.0002), TARGET),
    "heavy, contexts, E[w²] = 4000, 1000 rows": contexts(1000, 2, 2, -1.0),
    "heavy, contexts, E[w²] = 10⁷, 1000 rows": contexts(1000, 3, 3, -1.0),
    "no support for nine arms of ten": arms(1000, [0.5] * 10, [1.0, *[0.0] * 9], [0.1] * 10),
    "written while learning, ε falling, 500 rows": learning(500, CLOSE, UNIFORM, 0.01, thompson=False),
    "written while learning, ε falling, 2000 rows": learning(2000, CLOSE, UNIFORM, 0.01, thompson=False),
    "written by Thompson sampling, 1000 rows": learning(1000, CLOSE, UNIFORM, 0.01, thompson=True),
    "written by Thompson sampling, clicks of 1 %": learning(1000, RARE, UNIFORM, 0.01, thompson=True),
}
