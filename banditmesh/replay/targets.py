"""What a replay evaluates beside policies that learn: a saved model as it is, and probabilities that a log carries."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.policy import Policy
from banditmesh.bandits.registry import load
from banditmesh.decisions.spec import Spec, parse
from banditmesh.experiments.tally import NAME
from banditmesh.runtime.addresses import FileAddress, StoreAddress, parse_store
from banditmesh.runtime.errors import InvalidArgument, NotFound
from banditmesh.runtime.snapshots import BadSnapshot, Snapshot, Snapshots
from banditmesh.runtime.store import Store, connect

_Name = tuple[str, str, int | None]  # placement, model, version
_BELOW = re.compile(
    r"(?P<store>.*)/models/(?P<placement>[^/?]+)/(?P<model>[^/?]+)"
    r"(?:/(?P<version>[0-9]+)(?:/[^/?]+)?|/current\.json)?/?(?P<options>\?.*)?"
)
_HINT = "name …/models/<placement>/<model>, or one of its versions: a folder, file:///… or s3://…"


@dataclass(frozen=True)
class SavedSpec(Spec):
    """A model that stays as it was saved. `text` is its address and version."""

    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def build(self) -> Policy:
        """The model, whatever has been built before."""
        return load(self.policy, self.params, self.tensors)


@dataclass(frozen=True)
class ColumnSpec(Spec):
    """The probabilities in a column of the log, whose name this is."""

    name: str = ""


def column(name: str) -> ColumnSpec:
    """The target that a column is."""
    return ColumnSpec(f"column {name}", "random", {}, "greedy", name=name)


def saved(text: str) -> SavedSpec:
    """A saved or published model: ``ADDRESS[::PARAM{,PARAM}]``.

    The address is that of a store, then models/<placement>/<model>, then a version or nothing for the current one; a
    store that holds one model alone is enough. The PARAMs are those of a SPEC that a snapshot does not hold: explore
    and its parameters; user and cross too, in the place of what its manifest says that it saw.

    Raises:
        NotFound: there is no such model.
        InvalidArgument: the address, a PARAM or the snapshot is wrong.
    """
    address, _, params = text.partition("::")
    snapshot = asyncio.run(_loaded(address))
    said = parse(f"{snapshot.manifest.policy}:{params}")
    if said.params:
        wrong = next(iter(said.params))
        raise InvalidArgument(f"model {text}: {wrong} is part of the model as it was saved", field=wrong)
    found = published(snapshot, said.explore, said.explore_params, said.features)
    return replace(found, text=f"{found.text}::{params}") if params else found


def published(
    snapshot: Snapshot, explore: str, explore_params: Mapping[str, Any], features: Mapping[str, Any]
) -> SavedSpec:
    """A snapshot as what a replay evaluates. Raises InvalidArgument when its tensors are not its policy's."""
    manifest = snapshot.manifest
    where = f"{manifest.placement}/{manifest.model} version {manifest.version}"
    seen = {**manifest.features, **features}
    found = SavedSpec(where, manifest.policy, manifest.params, explore, explore_params, seen, snapshot.tensors)
    try:
        found.build()
    except BanditError as error:
        raise InvalidArgument(f"model {where}: {error}", field="model", value=where) from error
    return found


async def _loaded(text: str) -> Snapshot:
    store, placement, model, version = await located(text)
    try:
        return await Snapshots(store, None).load(placement, model, version)
    except BadSnapshot as error:
        raise InvalidArgument(f"model {text}: {error}", field="model", value=text) from error
    finally:
        await store.close()


async def located(text: str) -> tuple[Store, str, str, int]:
    """The store, the placement, the model and the version of an address, as :func:`saved` reads it; the store is the
    caller's to close.

    Raises:
        NotFound: there is no such model.
        InvalidArgument: the address is wrong.
    """
    address, name = _split(text)
    if isinstance(address, FileAddress) and not address.folder.is_dir():
        raise NotFound(f"there is no folder {address.folder}", field="model", value=text, hint=_HINT)
    store = connect(address)
    try:
        placement, model, version = name or await _only(store, text)
        if version is None:
            pointer = await Snapshots(store, None).pointer(placement, model)
            if pointer is None:
                raise NotFound("no model is published there", field="model", value=text, hint=_HINT)
            version = pointer.version
        return store, placement, model, version
    except BaseException as error:
        await store.close()
        if isinstance(error, BadSnapshot):
            raise InvalidArgument(f"model {text}: {error}", field="model", value=text) from error
        raise


def _split(text: str) -> tuple[StoreAddress, _Name | None]:
    """The store, and what is named below it; None for the store alone."""
    url = text if "://" in text else Path(text).absolute().as_uri()
    found = _BELOW.fullmatch(url)
    try:
        if found is None:
            return parse_store(url), None
        version = None if found["version"] is None else int(found["version"])
        return parse_store(found["store"] + (found["options"] or "")), (found["placement"], found["model"], version)
    except ValueError as error:
        raise InvalidArgument(f"is no address of a model: {error}", field="model", value=text, hint=_HINT) from error


async def _only(store: Store, text: str) -> _Name:
    """The one model of a store. Raises NotFound or InvalidArgument when there is none or are several."""
    keys = [key.split("/") async for key in store.list("models/")]
    models = sorted({(key[1], key[2]) for key in keys if len(key) == 4 and key[3] == "current.json" and key[2] != NAME})
    if not models:
        raise NotFound("the store has no model", field="model", value=text, hint=_HINT)
    if len(models) > 1:
        listed = ", ".join("models/" + "/".join(model) for model in models)
        raise InvalidArgument(f"the store has several models: {listed}", field="model", value=text, hint=_HINT)
    return (*models[0], None)
