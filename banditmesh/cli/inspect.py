"""``banditmesh inspect``: what an impression token carries; whether the archive gives a snapshot again."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from banditmesh.runtime.errors import InvalidArgument

if TYPE_CHECKING:
    from services.learner.archiving.verify import Verified


def inspect(
    token: Annotated[
        str,
        typer.Argument(metavar="TOKEN|verify", help="The token in base64, as grpcurl prints it; or: verify SNAPSHOT."),
    ],
    snapshot: Annotated[
        str | None,
        typer.Argument(
            help=r"With verify: a folder, or s3://…, that ends in models/PLACEMENT/MODEL\[/VERSION], in the store that "
            "has the archive. Absent: without verify."
        ),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(
            envvar="BANDITMESH_TOKEN_KEYS",
            help="number:hex,…; with keys the signature is checked too. Absent: those that `up` has made in --dir.",
        ),
    ] = None,
    directory: Annotated[
        Path, typer.Option("--dir", file_okay=False, help="The folder of `banditmesh up`, for its keys.")
    ] = Path(".banditmesh"),
    max_age: Annotated[float, typer.Option(help="How old a token may be, in seconds.")] = 3600.0,
    since: Annotated[
        int | None,
        typer.Option(min=0, help="With verify: begin with this version; 0: the prior. Absent: as early as can be."),
    ] = None,
    config: Annotated[
        Path,
        typer.Option(envvar="BANDITMESH_CONFIG", help="With verify: mesh.yaml, for learning.batch; may be absent."),
    ] = Path("mesh.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="With verify: print one JSON object.")] = False,
) -> None:
    """Show what an [bold]impression token[/] carries, and whether it would be accepted.

    [bold]inspect verify SNAPSHOT[/] learns a model again from the archive and compares the tensors byte for byte. Exit
    code 0: they are the same, 1: they are not.
    """
    if token == "verify":
        if snapshot is None:
            raise InvalidArgument(
                "verify needs a snapshot", field="SNAPSHOT", hint="file:///store/models/home/linear-…/41"
            )
        _verify(snapshot, since, config, as_json)
        return
    if snapshot is not None:
        raise InvalidArgument("one token at a time", field="SNAPSHOT", value=snapshot)
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError

    from banditmesh.contracts.events.v1 import events_pb2
    from banditmesh.runtime.token import TAG_BYTES, VERSION, KeyRing, TokenError

    made = directory / "token-keys"
    if keys is None and made.exists():
        keys = made.read_text().strip()
    ring = None if keys is None else KeyRing.parse(keys)
    no_token = InvalidArgument(
        "this is no impression token", value=token, hint="pass impression_token exactly as grpcurl printed it"
    )
    try:
        raw = base64.b64decode(token, validate=True)
        decision = events_pb2.Decision.FromString(raw[2:-TAG_BYTES])
    except (binascii.Error, DecodeError) as error:
        raise no_token from error
    if raw[:1] != bytes([VERSION]) or not decision.impression_id:
        raise no_token
    console = Console()
    console.print_json(json_format.MessageToJson(decision, preserving_proto_field_name=True))
    console.print(
        f"{len(raw)} bytes, signed with key {raw[1]}, {time.time() - decision.decided_at_ms / 1000:.0f} s old"
    )
    if ring is None:
        console.print(
            "The signature was not checked: give --keys, BANDITMESH_TOKEN_KEYS, or the --dir of up.", style="yellow"
        )
        return
    try:
        ring.verify(raw, now_s=time.time(), max_age_s=max_age)
    except TokenError as error:
        console.print(f"It would be refused: {error}", style="red")
        raise typer.Exit(1) from error
    console.print("The signature fits and the age is right: it would be accepted.", style="green")


def _verify(address: str, since: int | None, config: Path, as_json: bool) -> None:
    from banditmesh.cli.archive import progress
    from banditmesh.replay.targets import located
    from banditmesh.runtime.learning_options import Learning
    from banditmesh.runtime.mesh import load_mesh
    from banditmesh.runtime.snapshots import BadSnapshot
    from services.learner.archiving.verify import verify

    batch = (load_mesh(config).learning if config.exists() else Learning()).batch

    async def run() -> Verified:
        store, placement, model, version = await located(address)
        try:
            return await verify(store, placement, model, version, batch=batch, since=since, told=told)
        except BadSnapshot as error:
            raise InvalidArgument(str(error), field="SNAPSHOT", value=address) from error
        finally:
            await store.close()

    with progress("examples") as told:
        found = asyncio.run(run())
    if as_json:
        print(json.dumps({**vars(found), "same": found.same}))
    else:
        _say(found)
    if not found.same:
        raise typer.Exit(1)


def _say(found: Verified) -> None:
    beginning = f"version {found.since}" if found.since else "the prior"
    print(f"{found.placement}/{found.model} version {found.version}, from {beginning}: {found.replayed:,} examples")
    if found.same:
        print(f"the same, byte for byte: sha256 {found.sha256}")
        return
    print(f"NOT the same: sha256 {found.sha256} in the snapshot, {found.replayed_sha256} from the archive")
    if found.replayed != found.examples:
        print(
            f"the snapshot has learned from {found.examples:,} examples, the archive has {found.replayed:,} of them: "
            "it began later, hours have expired, or users were erased; --since VERSION begins later"
        )
