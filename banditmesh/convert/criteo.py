"""Two logs of Criteo's, told apart by their first line.

The counterfactual log (Lefortier et al. 2016): ``example ID: HASH CLICK PROPENSITY SLOTS CANDIDATES FEATURES``, then a
line for each candidate, the shown ones first; banners of one slot are decisions. The display advertising log: a
click, 13 numbers and 26 categories, separated by tabs; a row is plain supervision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from banditmesh.convert.log import Line, Log, Unusable, number

Row = dict[str, Any]
_EXAMPLE = re.compile(r"example (\S+): (\S+) (\S+) (\S+) ([0-9]{1,9}) ([0-9]{1,9})(?![0-9])(.*)")
_NUMBERS, _CATEGORIES = 13, 26


def convert(log: Log) -> Iterator[tuple[str, Row]]:
    """Yield the decisions with their places."""
    paths = log.files("train.txt", "CriteoBannerFillingChallenge.txt", "day_*")
    first = next(log.lines(paths[0], main=False), Line("", ""))
    yield from _banners(log, paths) if first.text.startswith("example ") else _clicks(log, paths)


def _clicks(log: Log, paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    for where, text in log.all_lines(paths):
        if not text.strip():
            continue
        try:
            values = text.split("\t")
            if len(values) != 1 + _NUMBERS + _CATEGORIES:
                raise Unusable(f"not {1 + _NUMBERS + _CATEGORIES} columns")
            numbers, categories = values[1 : 1 + _NUMBERS], values[1 + _NUMBERS :]
            features: Row = {f"I{at}": number(each, "a feature") for at, each in enumerate(numbers, 1) if each}
            features |= {f"C{at}": each for at, each in enumerate(categories, 1) if each}
            row = {
                "context": features,
                "candidates": [{"id": "ad"}],
                "shown": 0,
                "reward": number(values[0], "a click"),
            }
        except Unusable as error:
            log.skip(str(error), where)
        else:
            yield where, row


def _banners(log: Log, paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    block: list[Line] = []
    for line in log.all_lines(paths):
        if line.text.startswith("example ") and block:
            yield from _banner(log, block)
            block = []
        if line.text.strip():
            block.append(line)
    if block:
        yield from _banner(log, block)


def _banner(log: Log, block: list[Line]) -> Iterator[tuple[str, Row]]:
    where = block[0].where
    try:
        found = _EXAMPLE.fullmatch(block[0].text)
        if found is None:
            raise Unusable("not an example's first line")
        _, _, clicked, propensity, slots, count, features = found.groups()
        if slots != "1":
            raise Unusable("a banner of several slots")
        if int(count) != len(block) - 1:
            raise Unusable("more or fewer candidates than said")
        given = number(propensity, "a propensity")
        row = {
            "context": _features(features.split()),
            "candidates": [
                {"id": str(at), "features": _features(text.split()[1:])} for at, (_, text) in enumerate(block[1:], 1)
            ],
            "shown": 0,
            # Some editions hold the inverse.
            "propensity": given if given <= 1 else 1 / given,
            "reward": number(clicked, "a click"),
        }
    except Unusable as error:
        log.skip(str(error), where)
    else:
        yield where, row


def _features(words: list[str]) -> Row:
    """``3:17`` says that the feature 3 has the category 17; of several values it has a set."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, colon, value = word.partition(":")
        if colon and name != "exid":
            found.setdefault(f"f{name}", []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}
