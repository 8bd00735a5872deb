"""The errors of the bandit library: few, typed, each naming the field and the value that is wrong.

The library does no I/O and knows no gRPC; a service turns these into its own errors at the edge.
"""

from __future__ import annotations


class BanditError(ValueError):
    """Something given to the library is wrong.

    Attributes:
        field: where the fault is, as a dotted path (`features.offsets`, `linucb.dimension`).
        value: the value at fault, or None when it is too large to show.
    """

    def __init__(self, message: str, *, field: str, value: object = None) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.value = value


class InvalidBatch(BanditError):
    """Arrays of a batch do not fit together, or hold a value that no policy may see."""


class InvalidFeature(BanditError):
    """A named field holds a value that cannot become a feature (NaN, infinite, of a wrong type)."""


class InvalidParams(BanditError):
    """A parameter of a policy, an exploration or a specification is unknown or out of range."""


class UnknownName(BanditError):
    """No policy or exploration has this name."""


class InvalidTensors(BanditError):
    """Tensors of a snapshot are missing, or of another shape or type than the parameters demand."""


class NotMergeable(BanditError):
    """Two policies cannot be added up: they differ in parameters, or the policy keeps no sums."""
