"""Durations as configuration writes them: ``250ms``, ``30s``, ``10m``, ``6h``, ``7d``, ``0``. In code they are seconds.

A key that once took a number of seconds, such as ``half_life_s: 86400``, is still read, with a warning that says how it
is written now (`renamed`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic.fields import FieldInfo

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*(ms|s|m|h|d)")
LONGEST_S: Final = 36_500 * 86400.0
"""What is longer is a slip of the pen, and overflows where times are added."""
SHORTEST_S: Final = 0.001
"""Less becomes 0 where times are whole milliseconds, in Redis say, which refuses it."""
_HOW: Final = "write it like 250ms, 30s, 10m, 6h or 7d"


class OldSpelling(FutureWarning):
    """A key that is still read, and is written in another way now."""


def seconds(value: object) -> float:
    """A duration such as ``10m``, ``1h``, ``250ms`` or ``0``, in seconds.

    Raises:
        ValueError: it is no duration.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a duration; {_HOW}")
    if value == 0 or (isinstance(value, str) and value.strip() == "0"):
        return 0.0
    if isinstance(value, int | float):
        raise ValueError(f"{value!r} has no unit; {_HOW}")
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a duration; {_HOW}")
    duration_s = float(match[1]) * _UNITS[match[2]]
    if duration_s > LONGEST_S:
        raise ValueError(f"{value!r} is longer than {written(LONGEST_S)}, a hundred years")
    if 0 < duration_s < SHORTEST_S:
        raise ValueError(f"{value!r} is shorter than {written(SHORTEST_S)}")
    return duration_s


def written(duration_s: float) -> str:
    """The duration in the largest unit that it is a whole number of, else in seconds: 86400.0 is ``1d``."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = round(duration_s / _UNITS[unit])
        if count >= 1 and count * _UNITS[unit] == duration_s:
            return f"{count}{unit}"
    return f"{duration_s!r}s" if duration_s else "0"


def is_duration(field: FieldInfo) -> bool:
    """Whether a setting is a `Duration`, maybe an optional one."""
    kinds = (field, *(each for each in get_args(field.annotation) if get_origin(each) is Annotated))
    found = (part for kind in kinds for part in (kind.metadata if kind is field else get_args(kind)))
    return any(isinstance(part, BeforeValidator) and part.func is seconds for part in found)


def renamed(given: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """The same settings, with seconds under an old key brought to the duration under the new one.

    Args:
        given: settings as they were written.
        keys: new key by old key, such as ``{"half_life_s": "half_life"}``.

    Raises:
        ValueError: the old key and the new one are both there.
    """
    found = dict(given)
    for old, new in keys.items():
        if old not in found:
            continue
        value = found.pop(old)
        if new in found:
            raise ValueError(f"{old} is the old spelling of {new}; only one of them may be given")
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[new] = written(float(value)) if value > 0 else value
            how = f"{new}: {found[new]}"
        else:
            found[new] = value
            how = f"{new}: {'null' if value is None else value}"
        warnings.warn(f"{old}: {value} is an old spelling; write {how}", OldSpelling, stacklevel=2)
    return found


Duration = Annotated[float, BeforeValidator(seconds), PlainSerializer(written, when_used="json")]
"""Seconds, written as a duration."""
Positive = Annotated[Duration, Field(gt=0)]
"""A duration above 0."""
