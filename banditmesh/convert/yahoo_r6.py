"""Yahoo! Front Page Today Module (R6A and R6B, Li et al. 2010): ``time shown click |user 2:0.1 … |109498 2:0.3 …``.

The shown article was drawn uniformly, so the propensity is one over the number of articles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from banditmesh.convert.log import Log, Unusable, number

Row = dict[str, Any]


def convert(log: Log) -> Iterator[tuple[str, Row]]:
    """Yield the decisions with their places."""
    for where, text in log.all_lines(log.files("data.txt", "ydata-fp-td-clicks-v*", "ydata-*clicks*")):
        if not text.strip():
            continue
        try:
            yield where, _decision(text)
        except Unusable as error:
            log.skip(str(error), where)


def _decision(text: str) -> Row:
    head, *parts = text.split("|")
    words = head.split()
    if len(words) != 3:
        raise Unusable("not time, article and click before the first |")
    spaces = [part.split() for part in parts if part.strip()]
    users = [space for space in spaces if space[0] == "user"]
    articles = [space for space in spaces if space[0] != "user"]
    ids = [space[0] for space in articles]
    if words[1] not in ids:
        raise Unusable("the shown article is not among the candidates")
    return {
        "t": number(words[0], "a time"),
        "context": _features(users[0][1:], "user") if users else {},
        "candidates": [{"id": space[0], "features": _features(space[1:], "article")} for space in articles],
        "shown": ids.index(words[1]),
        "propensity": 1.0 / len(ids),
        "reward": number(words[2], "a click"),
    }


def _features(words: list[str], prefix: str) -> Row:
    """R6A has ``2:0.1``, R6B numbers of features that are there."""
    found: Row = {}
    for word in words:
        name, colon, value = word.partition(":")
        found[f"{prefix}_{name}"] = number(value, "a feature") if colon else 1.0
    return found
