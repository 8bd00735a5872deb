"""The Open Bandit Dataset (ZOZO, Saito et al. 2020): ``<behaviour policy>/<campaign>/<campaign>.csv`` with
``item_context.csv`` beside it. Every item is a candidate; a row is one of the three positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from banditmesh.convert.log import Line, Log, Unusable, columns, number
from banditmesh.runtime.errors import InvalidArgument, NotFound

Row = dict[str, Any]
_AFFINITY = "user-item_affinity_"


def convert(log: Log) -> Iterator[tuple[str, Row]]:
    """Yield the decisions with their places."""
    path = log.find("all.csv", "men.csv", "women.csv")
    items = _items(log)
    places = {each["id"]: at for at, each in enumerate(items)}
    lines = log.lines(path)
    header = _columns_of(path, next(lines, Line("", "")).text)
    if missing := sorted({"item_id", "click", "propensity_score"} - set(header)):
        raise InvalidArgument(
            f"nothing of {path} is obd: its first line has no column {missing[0]}", field="log", value=str(path)
        )
    for where, text in lines:
        if not text.strip():
            continue
        try:
            values = columns(text)
            if len(values) != len(header):
                raise Unusable("more or fewer columns than the header")
            yield where, _decision(dict(zip(header, values, strict=True)), items, places)
        except Unusable as error:
            log.skip(str(error), where)


def _items(log: Log) -> list[Row]:
    path = log.beside("item_context.csv")
    if path is None:
        raise NotFound(
            f"item_context.csv, with the candidates, does not lie beside {log.path}", field="log", value=str(log.path)
        )
    lines = log.lines(path, main=False)
    header = _columns_of(path, next(lines, Line("", "")).text)
    if "item_id" not in header:
        raise InvalidArgument(f"{path} has no column item_id in its first line", field="log", value=str(path))
    found: list[Row] = []
    for where, text in lines:
        if not text.strip():
            continue
        values = _columns_of(where, text)
        if len(values) != len(header):
            raise InvalidArgument(f"{where} has more or fewer columns than the first line: is it whole?", field="log")
        row = dict(zip(header, values, strict=True))
        features = {name: _feature(value) for name, value in row.items() if name.startswith("item_feature")}
        found.append({"id": row["item_id"], "features": features})
    return found


def _columns_of(where: object, text: str) -> list[str]:
    """Of a line without which nothing can be converted. Raises InvalidArgument."""
    try:
        return columns(text)
    except Unusable as error:
        raise InvalidArgument(f"{where}: {error}", field="log") from None


def _feature(value: str) -> str | float:
    """Numbers are numbers, hashes are categories."""
    try:
        return float(value)
    except ValueError:
        return value


def _decision(values: Row, items: list[Row], places: dict[str, int]) -> Row:
    shown = places.get(values.get("item_id", ""))
    if shown is None:
        raise Unusable("an item that item_context.csv does not have")
    candidates = items
    if f"{_AFFINITY}0" in values:
        candidates = [
            {
                "id": item["id"],
                "features": {
                    **item["features"],
                    "affinity": number(values.get(f"{_AFFINITY}{item['id']}", ""), "an affinity"),
                },
            }
            for item in items
        ]
    context = {name: value for name, value in values.items() if name.startswith("user_feature") and value}
    return {
        "t": values.get("timestamp", ""),
        "context": {**context, "position": values.get("position", "")},
        "candidates": candidates,
        "shown": shown,
        "propensity": number(values.get("propensity_score", ""), "a propensity"),
        "reward": number(values.get("click", ""), "a click"),
    }
