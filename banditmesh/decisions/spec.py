"""A policy as the commands take it: ``linucb:alpha=0.02,dense=x0..x9``, or a YAML file with the sections of mesh.yaml.

    SPEC  = NAME [":" PARAM {"," PARAM}]  |  PATH of a .yaml or .yml file
    PARAM = KEY "=" ITEM {"+" ITEM}
    KEY   = a parameter of the policy
          | "explore" (the name of an exploration) | a parameter of an exploration, "explore.KEY" where both have it
          | "user" (true: the row's user is a category) | "cross" (pairs such as id*context, see `View`)
    ITEM  = a YAML scalar without a comma, such as 0.5, true, null, logic or the range x0..x9

A parameter that only one exploration has chooses it: ``alpha`` means ``ucb``. Every error names the parameter.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.exploration.base import Exploration
from banditmesh.bandits.hashed_params import HashedParams
from banditmesh.bandits.policy import RENAMED, Policy
from banditmesh.bandits.registry import (
    EXPLORATIONS,
    POLICIES,
    build,
    build_exploration,
    exploration_of,
    model_name,
    policy_params,
)
from banditmesh.decisions.row import Decision
from banditmesh.decisions.view import GROUPS, IDENTITIES, View
from banditmesh.runtime.errors import InvalidArgument, printable

_MOST_CROSSES: Final = 64
"""Pairs of fields that are crossed unless the SPEC says otherwise."""
_SECTIONS: Final = ("policy", "explore", "features")


@dataclass(frozen=True)
class Spec:
    """A validated policy, exploration and view. `text` is how it was written, and names it in reports."""

    text: str
    policy: str
    params: Mapping[str, Any]
    explore: str
    explore_params: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The name that snapshots of this policy have."""
        return model_name(self.policy, self.params)

    def build(self) -> Policy:
        """A new policy at its prior."""
        return build(self.policy, self.params)

    def exploration(self) -> Exploration:
        """Its exploration. `ucb` of a `dense` linucb has no floor unless told: that is Algorithm 1 to the letter."""
        letter = self.explore == "ucb" and bool(self.params.get("dense"))
        return build_exploration(self.explore, {**({"floor": 0.0} if letter else {}), **self.explore_params})

    def view(self, first: Sequence[Decision]) -> View:
        """What the policy sees of the log that starts with these rows; what the SPEC leaves open is as follows.

        user: true for policies on hashed features (`stacked`, `linear`, `fm`, `nfm`), false for the others, whose few
        dimensions it would drown. cross, for the same ones: id*context when candidates have no features, for without a
        cross all of them would share what the context says; else each field of the context with the candidate's
        features, unless there are too many pairs. The user is crossed with nothing: most come too rarely.

        Raises:
            InvalidArgument: a field of `dense` or of `cross` is in none of these rows.
        """
        hashed = issubclass(POLICIES[self.policy].Params, HashedParams)
        shared = {name: None for row in first for name in row.context}
        own = {name for row in first for each in row.features for name in each}
        view = View.model_validate(
            {"user": hashed, "cross": _crosses(first, shared, own) if hashed else (), **self.features}
        )
        there = {*shared, *own}
        dense = getattr(policy_params(self.policy, self.params), "dense", ())
        for name in dense:
            if name not in there:
                raise _wrong(
                    self.text, "dense", f"names {name!r}, which no row of the log has{_suggestion(name, there)}"
                )
        known = {*there, *IDENTITIES, *GROUPS, "user"}
        for name in (side for pair in view.cross for side in pair):
            if name not in known:
                message = f"names {name!r}, which none of the log's first rows has{_suggestion(name, known)}"
                raise _wrong(self.text, "cross", message)
        return view.model_copy(update={"needed": dense})


def _crosses(first: Sequence[Decision], shared: Collection[str], own: Collection[str]) -> tuple[tuple[str, str], ...]:
    if len(first[0].ids) > 1 and not own:
        return (("id", "context"),)
    fields = tuple(name for name in shared if name not in own)
    return tuple((name, "candidate") for name in fields) if len(fields) * len(own) <= _MOST_CROSSES else ()


def parse(text: str) -> Spec:
    """The SPEC of a command line. Raises InvalidArgument, which names the parameter that is wrong."""
    if text.endswith((".yaml", ".yml")):
        return _from_file(text)
    name, _, rest = text.partition(":")
    model = _policy_model(text, name)
    params: dict[str, Any] = {}
    explore_params: dict[str, Any] = {}
    features: dict[str, Any] = {}
    explore: str | None = None
    said: set[str] = set()
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise _wrong(text, key or part, "must have the form key=value", value=part)
        if key in said:
            raise _wrong(text, key, "stands twice")
        said.add(key)
        if key in model.model_fields or RENAMED.get(key) in model.model_fields:
            params[key] = _items(value, wants_list=_wants_list(model, key))
        elif key == "explore":
            explore = value
        elif key == "cross":
            features[key] = [pair.split("*") for pair in value.split("+")]
        elif key == "user":
            features[key] = _scalar(value)
        else:
            explore_params[key.removeprefix("explore.")] = _items(value, wants_list=False)
    explore, explore_params = _exploration(text, name, explore, explore_params)
    return _checked(Spec(text, name, params, explore, explore_params, features))


def _exploration(text: str, policy: str, named: str | None, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The exploration's name and parameters: as said, or the only one that has these, or the policy's default."""
    if named is not None:
        return named, dict(params)
    default, usual = exploration_of(policy)
    usually = default
    for key in params:
        owners = [name for name, kind in EXPLORATIONS.items() if key in kind.model_fields]
        if not owners:
            known = [*POLICIES[policy].Params.model_fields, "explore", "user", "cross"]
            known += [each for kind in EXPLORATIONS.values() for each in kind.model_fields]
            raise _wrong(text, key, f"is no parameter of {policy} or of an exploration{_suggestion(key, known)}")
        if len(owners) == 1:
            default = owners[0]
    return default, {**(usual if default == usually else {}), **params}


def _from_file(text: str) -> Spec:
    try:
        sections = yaml.safe_load(Path(text).read_text())
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InvalidArgument(f"{text} is no readable YAML: {error}", field="policy", value=text) from error
    if not isinstance(sections, dict) or "policy" not in sections:
        raise InvalidArgument(f"{text} has no section policy", field="policy", value=text)
    for key in sections:
        if key not in _SECTIONS:
            raise _wrong(text, str(key), f"is no section{_suggestion(str(key), _SECTIONS)}")
    name, params = _section(text, "policy", sections["policy"])
    _policy_model(text, name)
    explore, usual = exploration_of(name)
    explore_params = dict(usual)
    if sections.get("explore") is not None:
        explore, explore_params = _section(text, "explore", sections["explore"])
    features = sections.get("features") or {}
    if not isinstance(features, dict):
        raise _wrong(text, "features", "must have keys such as user and cross", value=features)
    return _checked(Spec(text, name, params, explore, explore_params, features))


def _section(text: str, key: str, given: object) -> tuple[str, dict[str, Any]]:
    """A name alone, or one name with its parameters, as in mesh.yaml."""
    if isinstance(given, str):
        return given, {}
    if isinstance(given, dict) and len(given) == 1:
        ((name, params),) = given.items()
        if params is None or isinstance(params, dict):
            return str(name), params or {}
    raise _wrong(text, key, "must be one name with its parameters, such as {linucb: {ridge: 2}}", value=given)


def _policy_model(text: str, name: str) -> type[BaseModel]:
    if name not in POLICIES:
        raise _wrong(text, "policy", f"{name!r} does not exist{_suggestion(name, tuple(POLICIES))}", value=name)
    return POLICIES[name].Params


def _checked(spec: Spec) -> Spec:
    try:
        policy_params(spec.policy, spec.params)
        spec.exploration()
        View.model_validate(dict(spec.features))
    except BanditError as error:
        raise _wrong(spec.text, error.field, str(error).removeprefix(f"{error.field}: ")) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(spec.text, ".".join(map(str, first["loc"])), first["msg"], value=first["input"]) from error
    return spec


def _items(value: str, *, wants_list: bool) -> Any:
    number = _scalar(value)
    if isinstance(number, str) and "+" in value:
        return [_scalar(item) for item in value.split("+")]
    return [number] if wants_list and number is not None else number


def _scalar(value: str) -> Any:
    """What YAML reads in it; floats in Python's spelling too, for YAML 1.1 takes 1e-4 for a string."""
    try:
        return float(value) if "e" in value.lower() and value[:1] in "+-.0123456789" else yaml.safe_load(value)
    except (ValueError, yaml.YAMLError, RecursionError):
        return value


def _wants_list(model: type[BaseModel], key: str) -> bool:
    kind = model.model_fields[RENAMED.get(key, key)].annotation
    return any(typing.get_origin(each) in (tuple, list) for each in (kind, *typing.get_args(kind)))


def _wrong(text: str, key: str, message: str, *, value: object = None) -> InvalidArgument:
    return InvalidArgument(printable(f"policy {text}: {key} {message}"), field=printable(key), value=value)


def _suggestion(wrong: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f", did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(set(known))[:32]) or 'none'}"
