"""A mesh's own decisions and policies: archived decisions as a log, published models as what is judged on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from banditmesh.bandits.registry import POLICIES
from banditmesh.decisions.reader import COLUMNS, RULE_COLUMNS
from banditmesh.decisions.row import Decision
from banditmesh.decisions.spec import Spec, parse
from banditmesh.decisions.view import IDENTITIES, View
from banditmesh.reactions import KINDS
from banditmesh.replay.targets import SavedSpec, published
from banditmesh.runtime.cancellation import on_thread
from banditmesh.runtime.errors import DataLoss, InvalidArgument, NotFound
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.rule_options import names
from banditmesh.runtime.snapshots import BadSnapshot, Snapshot, Snapshots
from banditmesh.runtime.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

DAYS: Final = 30
"""How far a judgement looks back unless told."""


@dataclass(frozen=True)
class MeshSpec(SavedSpec):
    """A published model with the features that its placement makes; a feature that the log lacks is crossed with
    nothing."""

    def view(self, first: Sequence[Decision]) -> View:
        """See `Spec.view`."""
        there = {name for row in first for each in (row.context, *row.features) for name in each}
        crosses = [
            pair for pair in self.features.get("cross", ()) if all(side in there or side in IDENTITIES for side in pair)
        ]
        return View.model_validate({"user": False, "cross": crosses})


async def target(store: Store, name: str, placement: Placement, policy: str, explore: str = "") -> Spec:
    """What is judged.

    Args:
        policy: a variant of the placement: its newest published model as it is; or a SPEC, which learns as it goes.
        explore: an exploration in the place of that one's own: ``ucb:alpha=0.5,floor=0.01``.

    Raises:
        NotFound: nothing was published of the variant's model yet.
        InvalidArgument: it is neither a variant nor a SPEC, or the exploration is wrong.
    """
    variant = placement.experiment.variants.get(policy)
    if variant is None:
        try:
            return parse(joined(policy, explore))
        except InvalidArgument as error:
            known = ", ".join(placement.experiment.variants)
            raise InvalidArgument(
                f"{error.message}; it is no variant of {name} either: {known}", field="policy"
            ) from error
    exploration, params = variant.explore_name, variant.explore_params
    if explore:
        said = parse(joined("random", explore))
        exploration, params = said.explore, dict(said.explore_params)
    features = {"cross": placement.features.crosses}
    if not POLICIES[variant.policy_name].learns:
        return Spec(
            f"{policy} ({variant.policy_name})", variant.policy_name, variant.policy_params, exploration, params
        )
    found = published(await _newest(store, name, variant.model, policy), exploration, params, features)
    text = f"{policy} ({found.text})"
    return MeshSpec(
        text, found.policy, found.params, found.explore, found.explore_params, found.features, found.tensors
    )


async def _newest(store: Store, placement: str, model: str, policy: str) -> Snapshot:
    snapshots = Snapshots(store, None)
    try:
        pointer = await snapshots.pointer(placement, model)
        if pointer is None:
            raise NotFound("nothing is published of this variant's model yet", field="policy", value=policy)
        return await snapshots.load(placement, model, pointer.version)
    except BadSnapshot as error:
        raise DataLoss(f"the model of variant {policy} cannot be read: {error}") from error


def rule_name(placement: Placement, said: str) -> str:
    """The name of a rule that is said by its name, or by its number from 0. Raises InvalidArgument for another one."""
    known = names(placement.rules)
    if said in known:
        return said
    if said.isdecimal() and int(said) < len(known):
        return known[int(said)]
    hint = f"there are: {', '.join(known)}" if known else "the placement has no rules"
    raise InvalidArgument("the placement has no such rule", field="without_rules", value=said, hint=hint)


def joined(policy: str, explore: str) -> str:
    """A SPEC with an exploration put in."""
    if not explore:
        return policy
    name, _, params = explore.partition(":")
    said = [f"explore={name}", *(f"explore.{each}" for each in params.split(",") if each)]
    return f"{policy}{',' if ':' in policy else ':'}{','.join(said)}"


async def spool(
    store: Store,
    placement: str,
    start: datetime,
    end: datetime,
    path: Path,
    told: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write the placement's archived decisions of a span of time into a log on this machine; how many there are.

    A judgement reads its log once for each reward model and once for the policy; the store is asked once.
    """
    from pyarrow import parquet

    from banditmesh.archive.reader import read
    from banditmesh.archive.schema import conform

    writer: parquet.ParquetWriter | None = None
    schema: pa.Schema | None = None
    rows = 0
    try:
        async for batch in read(store, placement, start, end, kind="decisions"):
            known = [name for name in (*COLUMNS, *RULE_COLUMNS) if name in batch.schema.names]
            kept = _with_known_reactions(_with_rules(batch.select(known)))
            if writer is None or schema is None:
                schema = kept.schema
                writer = parquet.ParquetWriter(path, schema)
            if kept.schema != schema:  # written by another version
                kept = conform(kept, schema)
            await on_thread(writer.write_batch, kept)
            rows += len(kept)
            told(rows)
    finally:
        if writer is not None:
            await on_thread(writer.close)
    if not rows:
        raise NotFound(
            f"the archive has no decisions of {placement} from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}",
            field="placement",
            value=placement,
            hint="`decisions: {sample: 0.01}` of the placement in mesh.yaml has engines sample them; they come "
            "token.max_age and a window after they were made",
        )
    return rows


def _with_known_reactions(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Without those of a kind that only a newer release knows, which has archived before this one was brought back."""
    import pyarrow as pa

    if "reactions" not in batch.schema.names:
        return batch
    given = batch.column("reactions")
    if KINDS.keys() >= {*given.flatten().unique().to_pylist()}:
        return batch
    kept = [None if each is None else [kind for kind in each if kind in KINDS] for each in given.to_pylist()]
    at = batch.schema.get_field_index("reactions")
    return batch.set_column(at, batch.schema.field(at), pa.array(kept, given.type))


def _with_rules(batch: pa.RecordBatch) -> pa.RecordBatch:
    """With the columns about rules: files that lack them may stand before files that have them."""
    import pyarrow as pa

    from banditmesh.archive.schema import RULES

    for name, kind in (("barred", batch.schema.field("candidates").type), ("rules", RULES)):
        if name not in batch.schema.names:
            batch = batch.append_column(name, pa.nulls(len(batch), kind))
    return batch
