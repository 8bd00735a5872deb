"""Values that are valid and hardly what anybody meant: what Excel, pandas and SQL exports make of numbers, nulls and
lists. They cost no row; a warning says what was seen, and what would be right.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

ROUNDED: Final = re.compile(r"^(\d+\.0|\d(\.\d+)?[eE]\+\d+)$")
"""A whole number that a tool took for a measure: ``17.0`` of pandas, ``1.23457E+11`` of Excel."""
NULLS: Final = frozenset(
    ("NULL", "Null", "null", "None", "nan", "NaN", "NAN", "NaT", "<NA>", "N/A", "n/a", "#N/A", r"\N", "undefined")
)
"""How tools spell that there is no value; NA is Namibia."""
OTHER_SEPARATORS: Final = (",", ";", " ", "/", "\t")
_OTHER_NUMBER: Final = re.compile(
    r"[-+]?(\d{1,3}(\.\d{3})+,\d+|\d{1,3}(,\d{3})+(\.\d+)?|\d+,\d+|\d+([.,]\d+)?\s?%|[$€£¥]\s?\d[\d.,]*|\d[\d.,]*\s?[$€£¥])"
)
_WIDEST: Final = 1 << 53


def in_brackets(text: str) -> bool:
    """Whether a text looks like a list as Python, JSON or PostgreSQL write one: ``['a', 'b']``, ``{a,b}``."""
    return len(text) > 1 and text[0] + text[-1] in ("[]", "{}")


def is_number_otherwise(text: str) -> bool:
    """Whether a text is a number in a spelling that is not read as one: ``1.234,50``, ``1,234``, ``12 %``."""
    return _OTHER_NUMBER.fullmatch(text) is not None


def loses_digits(raw: Any) -> bool:
    """Whether a whole number is too large for a 64-bit float to tell from its neighbours."""
    return isinstance(raw, int | Decimal) and not -_WIDEST <= raw <= _WIDEST


def rounded(ids: pa.Array) -> NDArray[np.int64]:
    """Return the places of ids that look like a whole number that a tool has rounded."""
    try:
        return np.flatnonzero(pc.fill_null(pc.match_substring_regex(ids, ROUNDED.pattern), False))
    except pa.ArrowInvalid:  # some are not UTF-8, and will be rejected
        return np.empty(0, np.int64)


def nulls(ids: pa.Array) -> NDArray[np.int64]:
    """Return the places of ids that spell that there is none."""
    return np.flatnonzero(pc.is_in(ids, value_set=_NULLS))


def other_separator(cells: pa.Array) -> str:
    """Return what most texts seem to be lists by; empty: nothing."""
    for separator in OTHER_SEPARATORS:
        try:
            having = pc.sum(pc.match_substring(cells, separator)).as_py() or 0
        except pa.ArrowInvalid:  # some are not UTF-8, and will be rejected
            return ""
        if 2 * having > len(cells):
            return separator
    return ""


_NULLS: Final = pa.array(sorted(NULLS), pa.string())
