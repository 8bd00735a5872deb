"""Policies and explorations by name. A new one is one file and one line here; the laws of the tests then apply."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from banditmesh.bandits.als import Als
from banditmesh.bandits.beta_bernoulli import BetaBernoulli
from banditmesh.bandits.blend import Blend
from banditmesh.bandits.errors import InvalidParams, UnknownName
from banditmesh.bandits.exploration.base import Exploration
from banditmesh.bandits.exploration.epsilon_greedy import EpsilonGreedy
from banditmesh.bandits.exploration.greedy import Greedy
from banditmesh.bandits.exploration.softmax import Softmax
from banditmesh.bandits.exploration.squarecb import SquareCb
from banditmesh.bandits.exploration.thompson import Thompson
from banditmesh.bandits.exploration.ucb import Ucb
from banditmesh.bandits.exploration.zipf import Zipf
from banditmesh.bandits.fm import Fm
from banditmesh.bandits.linear import Linear
from banditmesh.bandits.linucb import Linucb
from banditmesh.bandits.linucb_hybrid import LinucbHybrid
from banditmesh.bandits.nfm import Nfm
from banditmesh.bandits.policy import Policy, PolicyParams
from banditmesh.bandits.popularity import Popularity
from banditmesh.bandits.stacked import Stacked
from banditmesh.bandits.uniform_random import UniformRandom

POLICIES: Final[dict[str, type[Policy]]] = {
    policy.name: policy
    for policy in (
        Als,
        BetaBernoulli,
        Blend,
        Fm,
        Linear,
        Linucb,
        LinucbHybrid,
        Nfm,
        Popularity,
        Stacked,
        UniformRandom,
    )
}

EXPLORATIONS: Final[dict[str, type[Exploration]]] = {
    exploration.name: exploration for exploration in (EpsilonGreedy, Greedy, Softmax, SquareCb, Thompson, Ucb, Zipf)
}

DEFAULT: Final = Stacked.name
"""The policy of a placement, a fit or a comparison that names none."""

_EXPLORATION_OF: Final[dict[str, tuple[str, Mapping[str, Any]]]] = {
    Stacked.name: (Thompson.name, {"scale": None, "floor": 0.01}),
    Linucb.name: (Ucb.name, {}),
    LinucbHybrid.name: (Ucb.name, {}),
    UniformRandom.name: (Greedy.name, {}),
    Popularity.name: (Thompson.name, {}),
    BetaBernoulli.name: (Thompson.name, {}),
}

MOST: Final = 1e12
"""No number among parameters is greater: sums of it, and scores in float32, would not be finite."""

LEAST: Final = 1e-9
"""No number among parameters is nearer to 0, but 0 itself: what is divided by it would not be finite in float32."""

_Model = TypeVar("_Model", bound=BaseModel)


def exploration_of(policy: str) -> tuple[str, Mapping[str, Any]]:
    """The exploration that a policy has where none is named, and its parameters."""
    return _EXPLORATION_OF.get(policy, (SquareCb.name, {}))


def policy_params(name: str, params: Mapping[str, Any] | None = None) -> PolicyParams:
    """The validated parameters of the policy of that name. Raises `UnknownName` or `InvalidParams`."""
    return _validated(_lookup(POLICIES, name, "policy").Params, name, params)


def build(name: str, params: Mapping[str, Any] | None = None) -> Policy:
    """A new policy at its prior. Raises `UnknownName` or `InvalidParams`, listing what is known."""
    return POLICIES[name](policy_params(name, params)) if name in POLICIES else _lookup(POLICIES, name, "policy")()


def load(name: str, params: Mapping[str, Any] | None, tensors: Mapping[str, NDArray[Any]]) -> Policy:
    """The policy that a snapshot holds. Raises `UnknownName`, `InvalidParams` or `InvalidTensors`."""
    return _lookup(POLICIES, name, "policy").from_tensors(policy_params(name, params), tensors)


def stands_on(name: str, params: Mapping[str, Any] | None = None) -> Mapping[str, Mapping[str, Any]]:
    """The policies that this one scores by and that have models of their own, with their parameters."""
    return policy_params(name, params).stands_on


def model_name(name: str, params: Mapping[str, Any] | None = None) -> str:
    """Policy name, "-", 8 hex digits of SHA-256 over its canonical parameters (defaults filled in, sorted JSON).

    Variants of equal policy and parameters have the same model name, and so share a model.
    """
    full = policy_params(name, params).model_dump(mode="json")
    canonical = json.dumps(full, sort_keys=True, separators=(",", ":"))
    return f"{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def build_exploration(name: str, params: Mapping[str, Any] | None = None) -> Exploration:
    """The exploration of that name. Raises `UnknownName` or `InvalidParams`, listing what is known."""
    return _validated(_lookup(EXPLORATIONS, name, "exploration"), name, params)


_Entry = TypeVar("_Entry")


def _lookup(known: Mapping[str, _Entry], name: str, what: str) -> _Entry:
    if name not in known:
        raise UnknownName(f"no {what} is called {name!r}{_suggestion(name, known)}", field=what, value=name)
    return known[name]


def _validated(model: type[_Model], name: str, params: Mapping[str, Any] | None) -> _Model:
    try:
        found = model.model_validate(dict(params or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, (name, *first["loc"])))
        if first["type"] == "extra_forbidden":
            wrong = str(first["loc"][-1])
            message = f"{name} has no parameter {wrong!r}{_suggestion(wrong, model.model_fields)}"
            raise InvalidParams(message, field=field, value=wrong) from error
        raise InvalidParams(f"{first['msg']}, got {first['input']!r}", field=field, value=first["input"]) from error
    _check_numbers(name, found, params or {})
    return found


def _check_numbers(field: str, found: Any, given: Any) -> None:
    """Raise InvalidParams for a number beyond `MOST` or below `LEAST`, and for a truth value that was taken for a
    number."""
    if isinstance(found, BaseModel):
        known = given if isinstance(given, Mapping) else {}
        for each in type(found).model_fields:
            _check_numbers(f"{field}.{each}", getattr(found, each), known.get(each))
    elif isinstance(found, float) and abs(found) > MOST:
        raise InvalidParams(f"must be from {-MOST:g} to {MOST:g}, got {found:g}", field=field, value=found)
    elif isinstance(found, float) and 0 < abs(found) < LEAST:
        raise InvalidParams(f"must be 0 or at least {LEAST:g}, got {found:g}", field=field, value=found)
    elif isinstance(given, bool) and not isinstance(found, bool):
        message = "must be a number: YAML reads yes, on, no, off as true or false"
        raise InvalidParams(f"{message}, got {given!r}", field=field, value=given)


def _suggestion(wrong: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=1)
    hint = f", did you mean {close[0]!r}?" if close else ";"
    return f"{hint} known: {', '.join(sorted(known)) or 'none'}"
