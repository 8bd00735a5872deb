"""The ``banditmesh`` command. One module a subcommand; heavy imports happen inside, so that ``--help`` is quick."""

from __future__ import annotations

import sys

import typer

from banditmesh.cli import check, dead_letters, demo, inspect, policies, up
from banditmesh.runtime.errors import MeshError

app = typer.Typer(
    name="banditmesh",
    help="One slot, many services: pick the one content worth showing now, and learn from click, mute and silence.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("check")(check.check)
app.command("policies")(policies.policies)
app.command("inspect")(inspect.inspect)
app.command("dead-letters")(dead_letters.dead_letters)

CONFIGURATION, INTERRUPTED = 2, 130


def main() -> None:
    """Run the command line; errors that we foresee end it with a message, not with a traceback."""
    try:
        app()
    except MeshError as error:
        print(f"banditmesh: {error}", file=sys.stderr)
        sys.exit(CONFIGURATION)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
