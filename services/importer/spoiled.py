"""Values that are valid and hardly what anybody meant: what Excel, pandas and SQL exports make of numbers, nulls and
lists. They cost no row; a warning says what was seen, and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_ROUNDED: Final = r"^(\d+\.0|\d([.,]\d+)?[eE]\+?\d+)$"
"""A whole number that a tool took for a measure: ``17.0`` of pandas, ``1.23457E+11`` of Excel, ``1e15`` of MySQL."""
LOST_DIGITS: Final = re.compile(r"^\d([.,]\d+[eE]\+?|[eE]\+)\d+$")
"""Those whose digits are gone. ``1e15`` is not among them, for nothing tells it from the digits of a hash."""
_QUOTED: Final = "^('.*'|=?\".*\"|`.*`|\u2018.*\u2019|\u201c.*\u201d|\u00ab.*\u00bb)$"
_GROUPED: Final = r"^\d{1,3}([ ,\x{a0}\x{202f}]\d{3})+$"
_INVISIBLE: Final = r"[\p{Cc}\p{Cf}]"
NULLS: Final = frozenset(
    [
        *("NULL", "Null", "null", "None", "nan", "NaN", "NAN", "NaT", "<NA>", "N/A", "n/a", r"\N", "undefined"),
        *("#N/A", "#NV", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"),
    ]
)
"""How tools spell that there is no value, and Excel that a formula went wrong; NA is Namibia."""
OTHER_SEPARATORS: Final = (",", ";", " ", "/", "\t")
_OTHER_NUMBER: Final = re.compile(
    r"[-+]?(\d{1,3}(\.\d{3})+,\d+|\d{1,3}(,\d{3})+(\.\d+)?|\d+,\d+([eE][-+]?\d+)?|\d+([.,]\d+)?\s?%|[$€£¥]\s?\d[\d.,]*|\d[\d.,]*\s?[$€£¥])"
)
BOOLEANS_OTHERWISE: Final = frozenset({"TRUE", "True", "FALSE", "False"})
"""As Excel and pandas write what is ``true`` and ``false`` in JSON and Parquet: other categories than those."""
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


def lost_digits(ids: pa.Array) -> NDArray[np.int64]:
    """Return the places of ids that are a number without its last digits, as Excel writes a long one."""
    return _matching(ids, LOST_DIGITS.pattern)


def _matching(ids: pa.Array, pattern: str) -> NDArray[np.int64]:
    try:
        return np.flatnonzero(pc.fill_null(pc.match_substring_regex(ids, pattern), False))
    except pa.ArrowInvalid:  # some are not UTF-8, and will be rejected
        return np.empty(0, np.int64)


def rounded(ids: pa.Array) -> NDArray[np.int64]:
    """Return the places of ids that look like a whole number that a tool has rounded."""
    return _matching(ids, _ROUNDED)


def quoted(ids: pa.Array) -> NDArray[np.int64]:
    """Return the places of ids that have the quotes of whoever wrote them around them."""
    return _matching(ids, _QUOTED)


def grouped(ids: pa.Array) -> NDArray[np.int64]:
    """Return the places of ids that look like a whole number in groups of three digits."""
    return _matching(ids, _GROUPED)


def invisible(ids: pa.Array) -> NDArray[np.int64]:
    """Return the places of ids with a character that nobody sees, such as a zero-width space."""
    return _matching(ids, _INVISIBLE)


def nulls(ids: pa.Array) -> NDArray[np.int64]:
    """Return the places of ids that spell that there is none."""
    return np.flatnonzero(pc.is_in(ids, value_set=_NULLS))


def other_separator(cells: pa.Array) -> str:
    """Return what most texts seem to be lists by; empty: nothing. The slashes of a URL separate no contents."""
    for separator in OTHER_SEPARATORS:
        try:
            having = pc.sum(pc.match_substring(cells, separator)).as_py() or 0
            if separator == "/":
                having -= pc.sum(pc.match_substring(cells, "://")).as_py() or 0
        except pa.ArrowInvalid:  # some are not UTF-8, and will be rejected
            return ""
        if 2 * having > len(cells):
            return separator
    return ""


_NULLS: Final = pa.array(sorted(NULLS), pa.string())
DOUBTS: Final[tuple[tuple[str, Callable[[pa.Array], NDArray[np.int64]], str], ...]] = (
    ("id_looks_rounded", rounded, "looks like a number that a tool has rounded"),
    ("id_in_groups", grouped, "looks like a number in groups of three digits, and is another id than its digits"),
    ("id_looks_null", nulls, "looks like a null of the tool that wrote it: leave the row or the item out"),
    ("id_in_quotes", quoted, "has quotes around it that belong to it: only double quotes quote, and in a CSV alone"),
    ("id_has_invisible_character", invisible, "has a character that nobody sees, and is another id without it"),
)
"""What is doubtful about an id: the reason, who finds the places, and the words behind the id."""
