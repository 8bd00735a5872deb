"""What is wrong with a configuration, in its writer's words: each wrong key with its path, its value and what would be
right."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from banditmesh.runtime.errors import SHOWN_VALUE_CHARACTERS, printable
from banditmesh.runtime.limits import closest
from banditmesh.runtime.wrong_keys import WrongKeys as WrongKeys

_WANTS_NUMBER: Final = re.compile(r"valid (number|integer)")
_EXPONENT: Final = re.compile(r"(?P<whole>[-+]?\d+)(?P<places>\.\d+)?[eE](?P<exponent>[-+]?\d{1,4})")
"""A number to everybody but YAML 1.1, which wants a point and a sign: ``1.0e+300``."""
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")


_MOST_CHARACTERS: Final = 1000
"""Of a line about a wrong key."""
MOST_LINES: Final = 100
"""Of an error; how many more there are is said, and they are not put into words."""
_DEEPEST: Final = 200
"""Lists and mappings inside each other; libyaml's composer goes down without a limit, to the end of the stack."""


def load_yaml(text: str) -> Any:
    """What a text says, by libyaml: large files take a fifth of what PyYAML's own parser takes.

    Raises:
        yaml.YAMLError: It is no YAML; the line stands in it.
        RecursionError: It is nested too deeply.
        ValueError: A date that looks like one and is none.
    """
    try:
        _check_depth(text)
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:  # libyaml's marks do not hold the line
        error.context_mark = _with_line(error.context_mark, text)
        error.problem_mark = _with_line(error.problem_mark, text)
        raise


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _StrictLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _with_line(mark: yaml.Mark | None, text: str) -> yaml.Mark | None:
    if mark is None:
        return None
    at = min(mark.index, len(text))
    return yaml.Mark(mark.name, mark.index, mark.line, mark.column, text, at)


class _StrictLoader(yaml.CSafeLoader):
    """YAML in which a key that stands twice is an error: PyYAML lets the last one win, silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As SafeLoader does, after a look at the keys."""
        seen: set[str] = set()
        for key, _value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def problems(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One line for each key that is wrong; ``model`` is what was validated."""
    return (_line(loc, words()) for loc, words in _wrong(error, model))


def bounded(error: ValidationError, model: type[BaseModel]) -> tuple[str, ...]:
    """The first of these lines, and how many more there are."""
    every = list(_wrong(error, model))
    lines = tuple(_line(loc, words()) for loc, words in every[:MOST_LINES])
    more = len(every) - len(lines)
    return (*lines, f"and {more} more") if more else lines


def _wrong(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[int | str, ...], Callable[[], str]]]:
    """Each wrong key, and what says in words what is wrong."""
    for item in error.errors(include_url=False):
        loc = item["loc"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, WrongKeys):
            yield from (((*loc, path), partial(str, text)) for path, text in cause.problems.items())
        else:
            yield (loc[:-1] if loc and loc[-1] == "[key]" else loc), partial(_words, item, model)


def _words(item: ErrorDetails, model: type[BaseModel]) -> str:
    loc, message = item["loc"], item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"unknown key{suggestion(str(loc[-1]), _known_keys(loc, model))}"
    if item["type"] == "missing":
        return "is missing"
    return f"the key: {message}" if loc and loc[-1] == "[key]" else message + _got(item["input"], item["msg"])


def suggestion(name: str, known: Collection[str]) -> str:
    """``; did you mean 'x'?``, or else a list of what there is."""
    close = closest(name, known)
    return f"; did you mean {close!r}?" if close is not None else f"; there is: {', '.join(sorted(known)) or 'nothing'}"


def _line(loc: tuple[int | str, ...], text: str) -> str:
    path = ".".join(str(part) for part in loc)
    line = f"{path}: {text}" if path else text
    if len(line) > _MOST_CHARACTERS:  # a value or a key is as long as somebody has pasted it
        line = f"{line[: _MOST_CHARACTERS // 2]}…{line[-_MOST_CHARACTERS // 2 :]}"
    return printable(line)


def _got(value: object, message: str) -> str:
    if isinstance(value, dict | list) or repr(value) in message:
        return ""
    return f" (is {repr(value)[:SHOWN_VALUE_CHARACTERS]}{_number_advice(value, message)})"


def _number_advice(value: object, message: str) -> str:
    """What would be right where a text stands instead of a number that it looks like."""
    if not isinstance(value, str) or not _WANTS_NUMBER.search(message):
        return ""
    if found := _EXPONENT.fullmatch(value):
        whole, places, exponent = found["whole"], found["places"] or ".0", int(found["exponent"])
        return f", a text to YAML: write {whole}{places}e{exponent:+d}"
    return ", a text: write it without quotes" if _NUMBER.fullmatch(value) else ""


def _known_keys(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The keys that are allowed where an unknown one stands."""
    annotation: Any = model
    for part in loc[:-1]:
        if get_origin(annotation) in (Union, UnionType):
            annotation = get_args(annotation)[0]
        if get_origin(annotation) in (dict, list):
            annotation = get_args(annotation)[-1]
        else:
            annotation = annotation.model_fields[str(part)].annotation
    if get_origin(annotation) in (Union, UnionType):
        annotation = get_args(annotation)[0]
    return [field.alias or name for name, field in annotation.model_fields.items()]
