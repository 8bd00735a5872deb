"""Vowpal Wabbit's text: ``--cb`` (``2:-1:0.5 | a b``, one line a decision) and ``--cb_adf`` (``shared | s``, then an
action a line, then an empty line).

Costs are minus rewards. Of ``--cb`` the candidates are the actions that occur anywhere in the file, so it is read
twice.
``name=value`` is a category, ``name:0.5`` a number, a bare ``name`` the number 1; a namespace is a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from banditmesh.convert.log import Line, Log, Unusable, number

Row = dict[str, Any]
_LABEL = re.compile(r"(?<![0-9])([0-9]{1,18}):([^:\s]+):([^:\s]+)")
_FIRST_LINES = 1000


class _Example(NamedTuple):
    """One line: its labels (action, cost, probability), tag and features."""

    labels: list[tuple[int, float, float]]
    shared: bool
    tag: str
    features: Row


def convert(log: Log) -> Iterator[tuple[str, Row]]:
    """Yield the decisions with their places."""
    path = log.find("data.vw", "data.txt")
    yield from _by_lines(log, path) if _is_one_line(log, path) else _by_blocks(log, path)


def _is_one_line(log: Log, path: Path) -> bool:
    """Whether each line is a decision: then none is shared, and no empty lines separate several others."""
    lines = [text for _, text in islice(log.lines(path, main=False), _FIRST_LINES)]
    if any(text.startswith("shared") for text in lines):
        return False
    labelled = [bool(_LABEL.match(text)) for text in lines if text.strip()]
    return all(labelled) or not any(not text.strip() for text in lines[:-1])


def _by_lines(log: Log, path: Path) -> Iterator[tuple[str, Row]]:
    known: set[int] = set()
    for _, text in log.lines(path, main=False):
        known.update(int(found[1]) for found in _LABEL.finditer(text.partition("|")[0]))
    actions = sorted(known)
    for where, text in log.lines(path):
        if not text.strip():
            continue
        try:
            example = _example(text)
            if len(example.labels) != 1:
                raise Unusable("not exactly one label action:cost:probability")
            ((action, cost, probability),) = example.labels
        except Unusable as error:
            log.skip(str(error), where)
            continue
        candidates = [{"id": str(each)} for each in actions]
        yield (
            where,
            {
                "context": example.features,
                "candidates": candidates,
                "shown": actions.index(action),
                "propensity": probability,
                "reward": -cost,
            },
        )


def _by_blocks(log: Log, path: Path) -> Iterator[tuple[str, Row]]:
    block: list[Line] = []
    for line in log.lines(path):
        if line.text.strip():
            block.append(line)
        elif block:
            yield from _block(log, block)
            block = []
    if block:
        yield from _block(log, block)


def _block(log: Log, block: list[Line]) -> Iterator[tuple[str, Row]]:
    where = block[0].where
    try:
        examples = [_example(text) for _, text in block]
        context: Row = {}
        if examples[0].shared:
            context, examples = examples[0].features, examples[1:]
        labelled = [at for at, example in enumerate(examples) if example.labels]
        if len(labelled) != 1 or len(examples[labelled[0]].labels) != 1:
            raise Unusable("not exactly one action with a label")
        (shown,) = labelled
        _, cost, probability = examples[shown].labels[0]
    except Unusable as error:
        log.skip(str(error), where)
        return
    candidates = [
        {"id": example.tag or str(at), "features": example.features} for at, example in enumerate(examples, 1)
    ]
    if len({each["id"] for each in candidates}) < len(candidates):
        candidates = [{**each, "id": str(at)} for at, each in enumerate(candidates, 1)]
    yield (
        where,
        {"context": context, "candidates": candidates, "shown": shown, "propensity": probability, "reward": -cost},
    )


def _example(text: str) -> _Example:
    head, bar, rest = text.partition("|")
    if not bar:
        raise Unusable("no features (|)")
    words = head.split()
    tag = next((word[1:] for word in words if word.startswith("'")), "")
    if not tag and bar and words[1:] and not head[-1].isspace() and not _LABEL.fullmatch(words[-1]):
        tag = words[-1]  # without a quote it is one when it touches the bar
    labels = [
        (int(found[1]), number(found[2], "a cost"), number(found[3], "a probability"))
        for word in words
        if (found := _LABEL.fullmatch(word))
    ]
    features: Row = {}
    for part in rest.split("|"):
        space = "" if part[:1].isspace() or not part else part.split(None, 1)[0]
        name, _, weight = space.partition(":")
        scale = number(weight, "a namespace's weight") if weight else 1.0
        for word in part.split()[1 if space else 0 :]:
            _add(features, f"{name}." if name else "", word, scale)
    return _Example(labels, words[:1] == ["shared"], tag, features)


def _add(features: Row, prefix: str, word: str, scale: float) -> None:
    name, colon, value = word.rpartition(":")
    if colon:
        features[prefix + name] = number(value, "a feature") * scale
        return
    key, equals, category = word.partition("=")
    if not equals or scale != 1.0:
        features[prefix + word] = scale
    elif (before := features.get(prefix + key)) is None:
        features[prefix + key] = category
    else:
        features[prefix + key] = [*(before if isinstance(before, list) else [str(before)]), category]
