"""MIND (Microsoft News, Wu et al. 2020): ``behaviors.tsv`` with ``news.tsv`` beside it. An impression shows all its
articles, so each has its own reward: rows of full information.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from banditmesh.convert.log import Log, Unusable

Row = dict[str, Any]
REMEMBERED = 20
"""How many of the articles that a user read last are features."""


def convert(log: Log) -> Iterator[tuple[str, Row]]:
    """Yield the decisions with their places."""
    path = log.find("behaviors.tsv")
    news = _news(log)
    for where, text in log.lines(path):
        if not text.strip():
            continue
        try:
            values = text.split("\t")
            if len(values) != 5:
                raise Unusable("not five columns")
            _, user, time, history, impressions = values
            candidates = [_candidate(each, news) for each in impressions.split()]
            if not candidates:
                raise Unusable("an impression without articles")
            seconds = _seconds(time)
        except Unusable as error:
            log.skip(str(error), where)
            continue
        read = history.split()[-REMEMBERED:]
        context: Row = {"history": read} if read else {}
        if categories := sorted({news[each]["category"] for each in read if each in news}):
            context["history_category"] = categories
        yield where, {"t": seconds, "user": user, "context": context, "candidates": candidates}


def _news(log: Log) -> dict[str, Row]:
    path = log.beside("news.tsv")
    rows = (text.split("\t") for _, text in log.lines(path, main=False)) if path else ()
    return {row[0]: {"category": row[1], "subcategory": row[2]} for row in rows if len(row) > 2}


def _candidate(impression: str, news: dict[str, Row]) -> Row:
    article, dash, clicked = impression.rpartition("-")
    if not dash or clicked not in ("0", "1"):
        raise Unusable("an article without a click label, as in the test set")
    return {"id": article, "features": news.get(article, {}), "reward": float(clicked)}


def _seconds(time: str) -> float:
    try:
        return datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Unusable("a time that is not like 11/15/2019 8:55:22 AM") from None
