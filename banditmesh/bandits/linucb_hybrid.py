"""LinUCB with hybrid linear models (Li, Chu, Langford, Schapire 2010, Algorithm 2): arms share a part of their model.

r = prior_reward + z^T beta + x^T theta_a, with beta for all arms and theta_a for each; x and z are projections of the
same features, of `dimension` and `shared_dimension`. So a new arm starts from what all others have in common.

Algorithm 2 corrects its A_0 and b_0 at each example. They are sums all the same: with A_a = ridge I + sum x x^T,
B_a = sum x z^T and b_a = sum r x for each arm,

    A_0 = ridge I + sum z z^T - sum_a B_a^T A_a^-1 B_a,    b_0 = sum r z - sum_a B_a^T A_a^-1 b_a

so learning is addition and two models merge by it. With beta = A_0^-1 b_0, G_a = B_a^T A_a^-1 and u = z - G_a x, a
candidate has mean prior_reward + u^T beta + x^T A_a^-1 b_a and variance x^T A_a^-1 x + u^T A_0^-1 u, which is the
paper's s_{t,a} with its square completed.

An arm's part (A_a^-1 as its whitening, A_a^-1 b_a, G_a) is derived when the arm was learned from, the shared part from
the corrections of all arms. With a half-life all arms change with time, and all are derived again. Bytes of an arm:
18 KiB with the default dimensions, 36 MB for the default number of arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.arms import Slots, arm_keys, decay
from banditmesh.bandits.batch import Candidates, Examples, Scores, SparseRows
from banditmesh.bandits.errors import NotMergeable
from banditmesh.bandits.gaussian import whitening
from banditmesh.bandits.linucb_sums import ArmSums, ArmSumsParams, Floats
from banditmesh.bandits.policy import PolicyParams, Tensors, tensor
from banditmesh.bandits.projection import NamedFields, Projection, SignedProjection

_DERIVE_AT_ONCE = 256
_READ_AT_ONCE = 64
_SHARE_AT_ONCE = 64
_LARGEST = 1e6
_SUMS = ("precision", "moment", "coupling")


class LinucbHybridParams(ArmSumsParams):
    """Parameters of `linucb_hybrid`."""

    max_arms: int = Field(default=2_000, ge=1, description="Arms kept; beyond this the ones shown longest ago go.")
    dimension: int = Field(default=16, ge=2, le=256, description="Length of x, the arm's own part, bias included.")
    shared_dimension: int = Field(default=32, ge=2, le=256, description="Length of z, the shared part, bias included.")


class LinucbHybrid(ArmSums):
    """See the module. State of an arm: sums of x x^T, r x and x z^T; beside them the sums of z z^T and r z."""

    name: ClassVar[str] = "linucb_hybrid"
    Params: ClassVar[type[PolicyParams]] = LinucbHybridParams
    learns: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    shares: ClassVar[bool] = True

    params: LinucbHybridParams

    def __init__(self, params: LinucbHybridParams | None = None) -> None:
        self.params = params or LinucbHybridParams()
        own, shared = (
            NamedFields(self.params.dense) if self.params.dense else SignedProjection(dimension)
            for dimension in (self.params.dimension, self.params.shared_dimension)
        )
        self._own: Projection = own
        self._shared: Projection = shared
        self._start()

    def _start(self) -> None:
        d, k = self._own.dimension, self._shared.dimension
        self._start_with(
            {
                "precision": (np.float64, (d, d)),
                "moment": (np.float64, (d,)),
                "coupling": (np.float64, (d, k)),
                "readout": (np.float32, (d + 1 + k, d)),  # the whitening, A^-1 b, G
                "correction": (np.float64, (k, k + 1)),  # B^T A^-1 B, B^T A^-1 b
            }
        )
        self._sums = np.zeros((k, k + 1))  # sum z z^T, sum r z; less the corrections of retired arms
        self._whitening, self._beta = np.eye(k) * self.params.ridge**-0.5, np.zeros(k)
        self._shared_is_stale = False

    # -- scoring

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`."""
        self._derive()
        owner = segments.owners(candidates.offsets)
        with np.errstate(over="ignore", invalid="ignore"):
            x, z = (
                vectors(project, candidates.features, vectors(project, candidates.context)[owner])
                for project in (self._own, self._shared)
            )
            slots = self._arms.find(arm_keys(self.params.arm, candidates))
            mean, variance = np.empty(len(x)), np.empty(len(x))
            for start in range(0, len(x), _READ_AT_ONCE):
                rows = slice(start, start + _READ_AT_ONCE)
                mean[rows], variance[rows] = self._read(x[rows], z[rows], slots[rows])
            return Scores((mean + self.params.prior).astype(np.float32), np.sqrt(variance).astype(np.float32))

    def _read(
        self, x: NDArray[np.float64], z: NDArray[np.float64], slots: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean above the prior and variance: float64[n] each. An unseen arm (-1) has the prior's own part."""
        d = x.shape[1]
        out = np.zeros((len(x), d + 1 + z.shape[1]))
        known = slots >= 0
        out[known] = np.matmul(self._arms["readout"][slots[known]], x[known, :, None])[:, :, 0]
        out[~known, :d] = x[~known] * self.params.ridge**-0.5
        u = z - out[:, d + 1 :]
        white = u @ self._whitening.T
        variance = np.einsum("ij,ij->i", out[:, :d], out[:, :d]) + np.einsum("ij,ij->i", white, white)
        return out[:, d] + u @ self._beta, variance

    def _derive(self) -> None:
        """Brings readouts, corrections and the shared part up to the sums as of now."""
        stale = np.flatnonzero(self._stale)
        if not len(stale) and not self._shared_is_stale:
            return
        arms, d = self._arms, self._own.dimension
        for start in range(0, len(stale), _DERIVE_AT_ONCE):
            part = stale[start : start + _DERIVE_AT_ONCE]
            left = decay(self._now_s - arms["last_s"][part], self.params.half_life)[:, None, None]
            white = whitening(arms["precision"][part] * left + self.params.ridge * np.eye(d))
            inverse = white.transpose(0, 2, 1) @ white
            coupling = (arms["coupling"][part] * left).transpose(0, 2, 1)
            moment = arms["moment"][part][:, :, None] * left
            arms["readout"][part, :d] = white
            arms["readout"][part, d] = (inverse @ moment)[:, :, 0]
            arms["readout"][part, d + 1 :] = coupling @ inverse
            arms["correction"][part] = (
                coupling @ inverse @ np.concatenate([coupling.transpose(0, 2, 1), moment], axis=2)
            )
        self._stale[stale] = False
        # Summed in the order of the keys: a loaded policy, whose slots lie in that order, has the same bits.
        total = self._sums - arms["correction"][np.argsort(arms.keys())].sum(axis=0)
        precision = total[:, :-1] + self.params.ridge * np.eye(len(total))
        self._whitening = whitening((precision + precision.T)[None] / 2)[0]
        self._beta = self._whitening.T @ (self._whitening @ total[:, -1])
        self._shared_is_stale = False

    # -- learning

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`."""
        self._learn(examples, vectors(self._own, examples.features), vectors(self._shared, examples.features))

    def _add(self, slots: Slots, centred: Floats, times_s: Floats, *projected: Floats) -> None:
        x, z = projected
        half_life_s, last_s = self.params.half_life, self._arms["last_s"]
        pushes = {
            "precision": x[:, :, None] * x[:, None, :],
            "moment": x * centred[:, None],
            "coupling": x[:, :, None] * z[:, None, :],
        }
        for part in segments.rounds(slots):
            at = slots[part]
            now_s = np.maximum(last_s[at], times_s[part])
            left, weight = decay(now_s - last_s[at], half_life_s), decay(now_s - times_s[part], half_life_s)
            for name, push in pushes.items():
                sums, shape = self._arms[name], (-1,) + (1,) * (push.ndim - 1)
                sums[at] = sums[at] * left.reshape(shape) + push[part] * weight.reshape(shape)
            last_s[at] = now_s
        self._share(z, np.column_stack([z, centred]), times_s)
        self._stale[slots] = True
        self._shared_is_stale = True

    def _share(self, z: NDArray[np.float64], right: NDArray[np.float64], times_s: NDArray[np.float64]) -> None:
        """Adds sum z (z, r)^T, one by one: so the bits do not depend on how the stream was cut."""
        if self.params.half_life is None:
            for start in range(0, len(z), _SHARE_AT_ONCE):
                part = slice(start, start + _SHARE_AT_ONCE)
                # numpy adds up over the first axis in its order.
                self._sums = np.concatenate([self._sums[None], z[part, :, None] * right[part, None, :]]).sum(axis=0)
            self._pass_time(float(times_s.max()))
            return
        for left, row, time_s in zip(z, right, times_s.tolist(), strict=True):
            self._pass_time(time_s)
            self._sums += np.outer(left, row) * decay(np.array([self._now_s - time_s]), self.params.half_life)

    def _pass_time(self, now_s: float) -> None:
        if now_s <= self._now_s:
            return
        if self.params.half_life is not None:
            self._sums *= decay(np.array([now_s - self._now_s]), self.params.half_life)
            self._stale[:] = True
        self._now_s = now_s

    def _retire(self) -> None:
        """Drops old arms; what they have explained of the shared sums is taken out of these for good."""
        if len(self._arms) <= self.params.max_arms and self.params.retire_after is None:
            return
        self._derive()
        keys, corrections = self._arms.keys(), self._arms["correction"].copy()
        dropped = self._arms.retire(self.params, self._now_s)
        order = np.argsort(keys)
        gone = order[np.isin(keys[order], dropped)]
        self._sums -= corrections[gone].sum(axis=0)
        self._stale = np.zeros(len(self._arms), np.bool_)
        self._shared_is_stale = True

    def start_epoch(self) -> None:
        """See `Policy.start_epoch`: all sums start from nothing."""
        self._start()

    # -- saving

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: per arm its sums and what is derived of them; "sums", "shared", "examples", "now_s"."""
        self._derive()
        shared = np.column_stack([self._whitening, self._beta])
        return {**self._saved(), "sums": self._sums.copy(), "shared": shared}

    @classmethod
    def from_tensors(cls, params: LinucbHybridParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        policy = cls(params)
        policy._restore(tensors)
        policy._sums = tensor(tensors, "sums", np.float64, policy._sums.shape).copy()
        shared = tensor(tensors, "shared", np.float64, policy._sums.shape)
        policy._whitening, policy._beta = np.ascontiguousarray(shared[:, :-1]), shared[:, -1].copy()
        return policy

    def merge(self, other: Self) -> None:
        """See `Policy.merge`: all sums are decayed to the later of both times and added."""
        if other.params != self.params:
            raise NotMergeable("the parameters differ", field="linucb_hybrid", value=other.params)
        if not len(other._arms):
            return
        half_life_s = self.params.half_life
        slots = self._claim(other._arms.keys())
        last_s = np.maximum(self._arms["last_s"][slots], other._arms["last_s"])
        mine = decay(last_s - self._arms["last_s"][slots], half_life_s)
        theirs = decay(last_s - other._arms["last_s"], half_life_s)
        for name in _SUMS:
            sums = self._arms[name]
            shape = (-1,) + (1,) * (sums.ndim - 1)
            sums[slots] = sums[slots] * mine.reshape(shape) + other._arms[name] * theirs.reshape(shape)
        self._arms["last_s"][slots] = last_s
        self._pass_time(other._now_s)
        self._sums += other._sums * decay(np.array([self._now_s - other._now_s]), half_life_s)
        self._stale[slots] = True
        self._shared_is_stale = True
        self._seen += other._seen
        self._retire()


def vectors(
    project: Projection, features: SparseRows, beside: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """float64[n, d]: the projected rows, added to those `beside` them, with the bias where the projection has one.

    A coordinate counts up to 1e6 in size.
    """
    rows = project.rows(features)
    if beside is not None:
        rows += beside
    # An arm's part is the small difference of large sums, of which float64 holds only so much.
    np.clip(rows, -_LARGEST, _LARGEST, out=rows)
    if project.intercept:
        rows[:, 0] = 1.0
    return rows
