"""How densely a content's clicks lie near a user, and its impressions: two sums a content, which the learner updates.

At time t, S_a(t) = Σ_c 2^(−(t − t_c) / H) · φ(u_c) over the content's clicks and I_a(t), alike, over its impressions
(`banditmesh.retrieval.kernel`), so that φ(u)·S_a is the kernel density estimate of the clicks at u (Parzen 1962), and
the rate φ(u)·S_a / φ(u)·I_a the kernel regression of Nadaraya 1964 and Watson 1964 with decay.

Sums are kept in *forward decay* (Cormode, Shkapenyuk, Srivastava & Xu 2009, §3): an event counts 2^((t_c − L) / H)
from a landmark L on, and what is older fades by what comes later weighing more. So a content that nobody touches does
not change, and a delta holds only the others. When weights get large, L moves by whole half-lives, which divides all
sums by a power of two: exact in floating point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import InvalidTensors, NotMergeable
from banditmesh.bandits.policy import tensor
from banditmesh.retrieval.kernel import Kernel
from banditmesh.retrieval.user_vector import unpack

Tensors = dict[str, NDArray[Any]]
_MOST_HALF_LIVES: Final = 40
"""The landmark moves when the newest event is so many half-lives behind it."""
_LEAST_MASS: Final = 0.01
"""A content whose decayed impressions are fewer is forgotten when there is need of room."""
_FIRST_ROWS: Final = 256


@dataclass(frozen=True)
class DensityParams:
    """What the sums of a density depend on.

    Attributes:
        dimensions: Of user vectors.
        features: Of φ.
        bandwidth: σ of the kernel.
        half_life_s: H.
        seed: Of φ's frequencies.
        contents: Kept at most.
    """

    dimensions: int
    features: int
    bandwidth: float
    half_life_s: float
    seed: int = 1
    contents: int = 200_000

    @property
    def kernel(self) -> Kernel:
        """K and φ."""
        return Kernel(self.dimensions, self.features, self.bandwidth, self.seed)

    @property
    def model(self) -> str:
        """The model's name: densities with equal parameters share one."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"density-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, eq=False)
class Events:
    """Impressions or clicks, in the order of their log.

    Attributes:
        contents: uint64[n], content keys.
        users: The user vector of each, as a token has it; empty where there is none.
        times_s: float64[n], seconds since the Unix epoch.
    """

    contents: NDArray[np.uint64]
    users: list[bytes]
    times_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.contents)


class DensitySums:
    """See the module. What sums hold does not depend on how events were cut into batches or onto learners, but for the
    rounding of float32.

    Attributes:
        events: Impressions and clicks that were taken in, ever.
        now_s: The latest time of an event; 0: there was none.
    """

    def __init__(self, params: DensityParams) -> None:
        self.params = params
        self.events = 0
        self.now_s = 0.0
        self._landmark_s = 0.0
        self._row_of: dict[int, int] = {}
        self._keys = np.zeros(_FIRST_ROWS, np.uint64)
        self._sums = np.zeros((2, _FIRST_ROWS, params.features), np.float32)
        """Of clicks and of impressions."""
        self._mass = np.zeros((2, _FIRST_ROWS))
        """The same without a user: Σ 2^((t − L) / H)."""
        self._touched: set[int] = set()
        self._moved = False
        """Whether rows or the landmark moved since :meth:`full`: a delta to what was published then cannot be."""

    def __len__(self) -> int:
        return len(self._row_of)

    def shown(self, events: Events) -> None:
        """Take in impressions."""
        self._add(1, events)

    def clicked(self, events: Events) -> None:
        """Take in clicks."""
        self._add(0, events)

    def _add(self, which: int, events: Events) -> None:
        if not len(events):
            return
        self._reach(float(events.times_s.max()))
        rows = self._claim(events.contents)
        weights = np.exp2((events.times_s - self._landmark_s) / self.params.half_life_s)
        np.add.at(self._mass[which], rows, weights)
        vectors = unpack(events.users, self.params.dimensions)
        known = np.flatnonzero(vectors.any(axis=1))
        phi = self.params.kernel.phi(vectors[known]) * weights[known, None].astype(np.float32)
        sums = self._sums[which]
        for at, row in zip(rows[known].tolist(), phi, strict=True):
            sums[at] += row
        self._touched.update(events.contents.tolist())
        self.events += len(events)

    def _reach(self, time_s: float) -> None:
        if not self.now_s:
            self._landmark_s = time_s
        self.now_s = max(self.now_s, time_s)
        behind = (self.now_s - self._landmark_s) / self.params.half_life_s
        if behind > _MOST_HALF_LIVES:
            self._move_landmark(int(behind))

    def _move_landmark(self, half_lives: int) -> None:
        self._landmark_s += half_lives * self.params.half_life_s
        scale = 2.0 ** -min(half_lives, 1000)
        self._sums *= np.float32(scale)
        self._mass *= scale
        self._moved = True

    def _claim(self, contents: NDArray[np.uint64]) -> NDArray[np.int64]:
        row_of = self._row_of
        for key in dict.fromkeys(contents.tolist()):
            if key in row_of:
                continue
            if len(row_of) == self.params.contents:
                self._make_room()
            row = len(row_of)
            if row == len(self._keys):
                self._grow()
            row_of[key] = row
            self._keys[row] = key
        return np.array([row_of[key] for key in contents.tolist()], np.int64)

    def _grow(self) -> None:
        more = min(2 * len(self._keys), max(self.params.contents, _FIRST_ROWS)) - len(self._keys)
        self._keys = np.concatenate([self._keys, np.zeros(more, np.uint64)])
        self._mass = np.concatenate([self._mass, np.zeros((2, more))], axis=1)
        self._sums = np.concatenate([self._sums, np.zeros((2, more, self.params.features), np.float32)], axis=1)

    def _make_room(self) -> None:
        """Forget the eighth of the contents that were shown least of late, at least one."""
        n = len(self._row_of)
        order = np.lexsort((self._keys[:n], self._mass[1, :n] + self._mass[0, :n]))
        self._keep(np.sort(order[max(n // 8, 1) :]))

    def _keep(self, rows: NDArray[np.int64]) -> None:
        n = len(rows)
        self._keys[:n] = self._keys[rows]
        self._mass[:, :n] = self._mass[:, rows]
        self._sums[:, :n] = self._sums[:, rows]
        self._mass[:, n:] = 0
        self._sums[:, n:] = 0
        self._row_of = {key: row for row, key in enumerate(self._keys[:n].tolist())}
        self._moved = True

    def forget_faded(self) -> None:
        """Forget the contents that were hardly shown or clicked of late: at a full snapshot."""
        n = len(self)
        left = self._mass[:, :n].sum(axis=0) * 2.0 ** (-(self.now_s - self._landmark_s) / self.params.half_life_s)
        keep = np.flatnonzero(left >= _LEAST_MASS)
        if len(keep) < n:
            self._keep(keep)

    def merge(self, other: Self) -> None:
        """Add sums of other events. Raises NotMergeable when the parameters differ."""
        if other.params != self.params:
            raise NotMergeable("the parameters differ", field="density", value=asdict(other.params))
        if not len(other):
            return
        self._reach(other.now_s)
        n = len(other)
        rows = self._claim(other._keys[:n])
        scale = 2.0 ** ((other._landmark_s - self._landmark_s) / self.params.half_life_s)
        self._mass[:, rows] += other._mass[:, :n] * scale
        self._sums[:, rows] += other._sums[:, :n] * np.float32(scale)
        self._touched.update(other._keys[:n].tolist())
        self.events += other.events

    # -- what is published

    @property
    def can_be_delta(self) -> bool:
        """Whether the changes since :meth:`full` are those of some rows alone."""
        return not self._moved

    @property
    def changed(self) -> int:
        """Contents that have changed since :meth:`full`."""
        return len(self._touched)

    def full(self) -> Tensors:
        """Everything; deltas hold what changes from here on."""
        self.forget_faded()
        self._touched.clear()
        self._moved = False
        return self.tensors()

    def delta(self) -> Tensors:
        """The contents that have changed since :meth:`full`, whole, in the order of their keys: however many deltas
        there were, the last one and the full snapshot are everything."""
        keys = np.sort(np.array(list(self._touched), np.uint64))
        return self._tensors(np.array([self._row_of[key] for key in keys.tolist()], np.int64))

    def tensors(self) -> Tensors:
        """A copy of everything, in the order of the contents' keys."""
        return self._tensors(np.argsort(self._keys[: len(self)], kind="stable"))

    def _tensors(self, rows: NDArray[np.int64]) -> Tensors:
        return {
            "contents": self._keys[rows],
            "clicks": self._sums[0, rows],
            "shows": self._sums[1, rows],
            "click_mass": self._mass[0, rows],
            "show_mass": self._mass[1, rows],
            "clock": np.array([self._landmark_s, self.now_s]),
            "events": np.array([self.events], np.int64),
        }

    @classmethod
    def from_tensors(cls, params: DensityParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """The sums of :meth:`tensors`. Raises InvalidTensors."""
        read = checked(params, tensors)
        sums = cls(params)
        n = len(read["contents"])
        if n > params.contents:
            raise InvalidTensors(f"{n} contents, at most {params.contents}", field="contents")
        while len(sums._keys) < n:
            sums._grow()
        sums._keys[:n] = read["contents"]
        sums._row_of = {key: row for row, key in enumerate(sums._keys[:n].tolist())}
        sums._sums[0, :n], sums._sums[1, :n] = read["clicks"], read["shows"]
        sums._mass[0, :n], sums._mass[1, :n] = read["click_mass"], read["show_mass"]
        sums._landmark_s, sums.now_s = read["clock"].tolist()
        sums.events = int(read["events"][0])
        return sums

    def apply(self, delta: Mapping[str, NDArray[Any]]) -> None:
        """Take over the rows of a delta to the full snapshot that this was read from. Raises InvalidTensors."""
        read = checked(self.params, delta)
        if read["clock"][0] != self._landmark_s and len(self):
            raise InvalidTensors("is a delta to another snapshot", field="clock")
        rows = self._claim(read["contents"])
        self._sums[0, rows], self._sums[1, rows] = read["clicks"], read["shows"]
        self._mass[0, rows], self._mass[1, rows] = read["click_mass"], read["show_mass"]
        self._landmark_s, self.now_s = read["clock"].tolist()
        self.events = int(read["events"][0])
        self._touched.update(read["contents"].tolist())


def checked(params: DensityParams, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """The tensors of a snapshot or a delta, each of the type and shape that it must have. Raises InvalidTensors."""
    contents = tensor(tensors, "contents", np.uint64, (None,))
    n = len(contents)
    if len(np.unique(contents)) < n:
        raise InvalidTensors("a content stands twice", field="contents")
    found: Tensors = {"contents": contents}
    for name in ("clicks", "shows"):
        found[name] = tensor(tensors, name, np.float32, (n, params.features))
    for name in ("click_mass", "show_mass"):
        found[name] = tensor(tensors, name, np.float64, (n,))
        if (found[name] < 0).any():
            raise InvalidTensors("is negative", field=name)
    found["clock"] = tensor(tensors, "clock", np.float64, (2,))
    found["events"] = tensor(tensors, "events", np.int64, (1,))
    return found
