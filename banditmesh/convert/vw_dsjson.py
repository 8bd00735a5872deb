"""Vowpal Wabbit's decision-service JSON (``vw --dsjson``), as Azure Personalizer and its kin log it: one object a line.

``_label_cost`` is minus the reward, ``_label_Action`` (from 1) what was shown with ``_label_probability``. Namespaces
become prefixes of features: ``{"User": {"age": 20}}`` is ``User.age``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from banditmesh.convert.log import Log, Unusable
from banditmesh.json_keys import Decoder

Row = dict[str, Any]
_GREATEST = sys.float_info.max
_IDS = ("_tag", "id", "Id", "ID", "_id")


def convert(log: Log) -> Iterator[tuple[str, Row]]:
    """Yield the decisions with their places."""
    decoder = Decoder()
    for where, text in log.all_lines(log.files("data.json", "data.dsjson", "**/*.dsjson", "**/*.json")):
        if not text.strip():
            continue
        try:
            event = decoder.decode(text)
            if decoder.twice is not None:
                raise Unusable("a key stands twice in an object")
            row = _decision(event)
            if event.get("pdrop"):
                log.note("weighs as one, and stands for others that were dropped too (pdrop)", where)
            yield where, row
        except (ValueError, RecursionError):
            log.skip("the line is not JSON", where)
        except Unusable as error:
            log.skip(str(error), where)


def _decision(event: Any) -> Row:
    if not isinstance(event, dict):
        raise Unusable("the line is no object")
    if "RewardValue" in event and "c" not in event:
        raise Unusable("a reward without its decision (dangling)")
    if "_outcomes" in event:
        raise Unusable("several slots (_outcomes)")
    if event.get("_skipLearn"):
        raise Unusable("marked as not to be learned (_skipLearn)")
    context = event.get("c")
    actions = context.get("_multi") if isinstance(context, dict) else None
    if not isinstance(context, dict) or not isinstance(actions, list) or not actions:
        raise Unusable("no actions (c._multi)")
    order, probabilities = event.get("a"), event.get("p")
    action = event.get("_label_Action", order[0] if isinstance(order, list) and order else None)
    cost = event.get("_label_cost")
    if type(action) is not int or not 1 <= action <= len(actions):
        raise Unusable("no action that was shown (_label_Action)")
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        raise Unusable("no cost (_label_cost)")
    if not -_GREATEST <= cost <= _GREATEST:  # NaN too
        raise Unusable("a cost that is not finite (_label_cost)")
    propensity = event.get("_label_probability")
    if propensity is None and isinstance(order, list) and isinstance(probabilities, list) and action in order:
        at = order.index(action)
        if at >= len(probabilities):
            raise Unusable("fewer probabilities (p) than actions (a)")
        propensity = probabilities[at]
    row: Row = {
        "context": flat({name: value for name, value in context.items() if not name.startswith("_")}),
        "candidates": [_candidate(each, at) for at, each in enumerate(actions, 1)],
        "shown": action - 1,
        "reward": -float(cost),
    }
    if propensity is not None:
        row["propensity"] = propensity
    if time := event.get("Timestamp"):
        row["t"] = time
    return row


def _candidate(action: Any, at: int) -> Row:
    if not isinstance(action, dict):
        raise Unusable("an action is no object")
    spaces = [action, *(value for value in action.values() if isinstance(value, dict))]
    found = next((space[name] for space in spaces for name in _IDS if isinstance(space.get(name), str | int)), at)
    return {"id": str(found), "features": flat({name: each for name, each in action.items() if name[:1] != "_"})}


def flat(features: Mapping[str, Any], prefix: str = "") -> Row:
    """Return nested features as one object: the names of nested ones are joined by dots, lists of numbers numbered."""
    found: Row = {}
    for name, value in features.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict):
            found.update(flat(value, f"{full}."))
        elif isinstance(value, list):
            if value and all(isinstance(each, str) for each in value):
                found[full] = value
            else:
                found.update(flat({str(at): each for at, each in enumerate(value)}, f"{full}."))
        elif value is not None:
            found[full] = value
    return found
