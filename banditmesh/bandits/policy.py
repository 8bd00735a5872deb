"""What every policy is: it scores candidates, learns from examples, and can be saved, loaded and added up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from banditmesh.bandits.batch import Candidates, Examples, Scores
from banditmesh.bandits.durations import Positive, renamed
from banditmesh.bandits.errors import InvalidTensors

Tensors = dict[str, NDArray[Any]]

RENAMED: Final = {"half_life_s": "half_life", "retire_after_s": "retire_after"}
"""Parameters that were a number of seconds, and are durations now."""


class PolicyParams(BaseModel):
    """Base of the parameters of a policy: frozen, closed (an unknown name is an error), every field described."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def rewards_within(self) -> tuple[float, float]:
        """The rewards that a policy with these parameters can learn from; it refuses others."""
        return -math.inf, math.inf

    @property
    def stands_on(self) -> Mapping[str, Mapping[str, Any]]:
        """The policies with models of their own that a policy with these parameters scores by, with theirs."""
        return {}

    @model_validator(mode="before")
    @classmethod
    def _old_spellings_are_read(cls, given: Any) -> Any:
        known = {old: new for old, new in RENAMED.items() if new in cls.model_fields}
        return renamed(given, known) if isinstance(given, Mapping) else given


class PerArmParams(PolicyParams):
    """Parameters of a policy that keeps separate state for each arm."""

    max_arms: int = Field(
        default=10_000, ge=1, description="Arms kept; beyond this the ones shown longest ago are retired."
    )
    retire_after: Positive | None = Field(
        default=None, description="Arms not shown for so long are retired; null keeps them."
    )
    half_life: Positive | None = Field(
        default=None, description="Age at which an example counts half (drift); null never forgets."
    )


class Policy(Protocol):
    """A learning algorithm. One thread at a time: `score` may complete derived values that `learn` has made stale.

    A policy that comes out of `from_tensors` has nothing stale, so scoring it changes nothing.

    Class attributes:
        name: how configuration calls it.
        Params: the model of its parameters.
        learns: whether examples change its scores (false for the baseline `random`).
        merges: whether `merge` works.
        shares: whether arms share a part of the model, from which an unseen arm starts instead of the prior.
    """

    name: ClassVar[str]
    Params: ClassVar[type[PolicyParams]]
    learns: ClassVar[bool]
    merges: ClassVar[bool]
    shares: ClassVar[bool]

    @property
    def params(self) -> PolicyParams:
        """The parameters that it was built with."""
        ...

    def __init__(self, params: Any = None) -> None:
        """Starts from the prior. `params`: an instance of `Params`; None for all defaults."""
        ...

    def score(self, candidates: Candidates) -> Scores:
        """Mean and deviation of the reward of each candidate, float32[n_candidates] each. An unseen arm: the prior."""
        ...

    def learn(self, examples: Examples) -> None:
        """Takes the examples in, in their order.

        The state afterwards depends on the sequence of all examples alone, byte for byte, not on how it was cut into
        batches. All or nothing: `InvalidBatch` (a reward, feature or time that is not finite) leaves the state alone.
        """
        ...

    def start_epoch(self) -> None:
        """The examples that come now have been seen before: evidence is counted anew, from none.

        What was estimated step by step is where the new pass starts; what is sums is built up again. Without this call
        a second pass over the same examples would make the policy twice as sure as it may be.
        """
        ...

    def tensors(self) -> Tensors:
        """All of the state, by name; arrays that the caller may keep. The same state gives the same bytes."""
        ...

    @classmethod
    def from_tensors(cls, params: Any, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """The policy that gave these tensors. Read-only (memory-mapped) arrays are used in place until it learns.

        Raises:
            InvalidTensors: a tensor is missing, or of another shape or type than `params` demands.
        """
        ...

    def merge(self, other: Self) -> None:
        """Adds what `other` has learned from other examples, as if this policy had seen both.

        Raises:
            NotMergeable: the parameters differ, or the policy keeps no sums.
        """
        ...


def tensor(
    tensors: Mapping[str, NDArray[Any]], name: str, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """The tensor of that name, with its type and shape verified (None: any length); else `InvalidTensors`."""
    array = tensors.get(name)
    if array is None:
        raise InvalidTensors(f"is missing; there are: {', '.join(sorted(tensors)) or 'none'}", field=name)
    if array.dtype != dtype:
        raise InvalidTensors(f"has type {array.dtype}, must be {np.dtype(dtype)}", field=name)
    if len(array.shape) != len(shape) or any(
        want not in (None, have) for want, have in zip(shape, array.shape, strict=True)
    ):
        wanted = "×".join("n" if want is None else str(want) for want in shape)
        raise InvalidTensors(f"has shape {array.shape}, must be {wanted}", field=name, value=array.shape)
    return array
