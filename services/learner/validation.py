"""Progressive validation: each example is predicted before it is learned, by the model that learns and by the published
one; so one knows, on examples that neither has seen, whether publishing would make things worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.policy import Policy
from banditmesh.runtime.learning_options import ValidationLimits

_EDGE: Final = 1e-6
_MOST_WEIGHT: Final = 10.0


@dataclass(frozen=True)
class Quality:
    """How good predictions are.

    Attributes:
        reward: The mean reward of the half of the examples that the model thinks better of, weighted by one over their
            propensities (at most 10): what it would earn more or less where it may choose. More is better.
        log_loss: Of the reward, scaled to [0, 1] by the placement's least and largest reward. Less is better.
        calibration: How far the mean prediction is from the mean reward, in rewards. Less is better.
    """

    reward: float
    log_loss: float
    calibration: float


class Validation:
    """Keeps the newest predictions of one model. Used by one thread at a time."""

    def __init__(self, limits: ValidationLimits, least: float, most: float) -> None:
        """``least``, ``most``: the placement's rewards."""
        self._limits = limits
        self._least, self._span = least, max(most - least, _EDGE)
        self._published: Policy | None = None
        self._seen = np.zeros((4, 0))
        """float64[4, n]: predicted by the model that learns, and by the published one; the reward, and its weight."""

    def publish(self, policy: Policy | None) -> None:
        """This is the published model from now on; None: there is none. It must not change any more."""
        self._published = policy

    def see(self, learning: Policy, examples: Examples) -> None:
        """Predict examples that are about to be learned."""
        if self._published is None:
            return
        try:
            now, before = (each.score(_alone(examples)).mean for each in (learning, self._published))
        except BanditError:  # learning will refuse them, and say why
            return
        weight = np.minimum(1 / np.maximum(examples.propensities, _EDGE), _MOST_WEIGHT)
        newest = np.stack([now, before, examples.rewards, weight]).astype(np.float64)
        self._seen = np.concatenate([self._seen, newest], axis=1)[:, -self._limits.examples :]

    def quality(self) -> tuple[Quality, Quality] | None:
        """Of the model that learns, and of the published one; None: too few examples have been seen."""
        if self._seen.shape[1] < self._limits.examples:
            return None
        now, before, rewards, weights = self._seen
        return self._of(now, rewards, weights), self._of(before, rewards, weights)

    def worse(self) -> Mapping[str, str]:
        """By which metric the model that learns is worse by more than is allowed, and in which words; mostly none."""
        both = self.quality()
        if both is None:
            return {}
        now, before = both
        worse: dict[str, str] = {}
        for name, allowed, by in (
            ("reward", self._limits.reward, before.reward - now.reward),
            ("log_loss", self._limits.log_loss, now.log_loss - before.log_loss),
            ("calibration", self._limits.calibration, now.calibration - before.calibration),
        ):
            if allowed is not None and not by <= allowed:  # also for NaN
                worse[name] = f"{getattr(now, name):.5g}, and {getattr(before, name):.5g} of the published one"
        return worse

    def _of(
        self, predicted: NDArray[np.float64], rewards: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> Quality:
        share = np.clip((predicted - self._least) / self._span, _EDGE, 1 - _EDGE)
        earned = np.clip((rewards - self._least) / self._span, 0.0, 1.0)
        better = predicted >= np.median(predicted)
        total = weights[better].sum()
        return Quality(
            reward=float((weights * rewards)[better].sum() / total) if total else float("nan"),
            log_loss=float(-(earned * np.log(share) + (1 - earned) * np.log1p(-share)).mean()),
            calibration=abs(float(predicted.mean() - rewards.mean())),
        )


def _alone(examples: Examples) -> Candidates:
    """Each example as a decision with one candidate."""
    n = len(examples.rewards)
    return Candidates(
        np.arange(n + 1),
        examples.contents,
        examples.logics,
        examples.services,
        SparseRows.empty(n),
        examples.features,
    )
