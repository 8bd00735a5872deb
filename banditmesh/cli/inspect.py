"""``banditmesh inspect``: what an impression token carries."""

from __future__ import annotations

import base64
import binascii
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from banditmesh.runtime.errors import InvalidArgument


def inspect(
    token: Annotated[str, typer.Argument(help="The token in base64, as grpcurl prints it.")],
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
) -> None:
    """Show what an [bold]impression token[/] carries, and whether it would be accepted."""
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
