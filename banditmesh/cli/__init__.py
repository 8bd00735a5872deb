"""The ``banditmesh`` command. One module a subcommand; heavy imports happen inside, so that ``--help`` is quick."""

from __future__ import annotations

import sys

import typer

from banditmesh.cli import (
    als,
    archive,
    capacity,
    check,
    convert,
    dead_letters,
    demo,
    demo_cinema,
    demo_news,
    embed,
    evaluate,
    experiment,
    export,
    fit,
    inspect,
    policies,
    replay,
    topics,
    torture,
    up,
    verify,
)
from banditmesh.local.process import DidNotStart
from banditmesh.runtime.errors import ConfigurationError, InvalidArgument, MeshError

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
app.command("demo-cinema")(demo_cinema.demo_cinema)
app.command("demo-news")(demo_news.demo_news)
app.command("check")(check.check)
app.command("capacity")(capacity.capacity)
app.command("torture")(torture.torture)
app.command("topics")(topics.topics)
app.command("verify")(verify.verify)
app.command("policies")(policies.policies)
app.command("replay")(replay.replay)
app.command("fit")(fit.fit)
app.command("convert")(convert.convert)
app.command("evaluate")(evaluate.evaluate)
app.command("experiment")(experiment.experiment)
app.command("inspect")(inspect.inspect)
app.add_typer(als.app, name="als")
app.add_typer(archive.app, name="archive")
app.add_typer(embed.app, name="embed")
app.add_typer(export.app, name="export")
app.command("dead-letters")(dead_letters.dead_letters)

FAILED, MISCONFIGURED = 1, 2


def main() -> None:
    """Run the command line; errors that we foresee end it with a message, not with a traceback.

    Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, 130 interrupted.
    """
    try:
        app()
    except (ConfigurationError, InvalidArgument) as error:
        _refuse(error, MISCONFIGURED)
    except (MeshError, DidNotStart) as error:
        _refuse(error, FAILED)


def _refuse(error: Exception, code: int) -> None:
    print(f"banditmesh: {error}", file=sys.stderr)
    sys.exit(code)
