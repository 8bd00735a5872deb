"""All commands, and what they have in common: a mistake is a message with an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
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
from banditmesh.cli.examples import show_examples
from banditmesh.local.process import DidNotStart
from banditmesh.runtime.errors import ConfigurationError, InvalidArgument, MeshError
from banditmesh.signals import SIGNALLED, Interrupted

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
show_examples(app)

FAILED, MISCONFIGURED = 1, 2


def main() -> None:
    """Run the command line; what we foresee ends it with a message, not with a traceback.

    Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, 128 and its number: a signal has
    ended it (130: Ctrl-C).
    """
    code = _run()
    unwritten = _flushed()
    if unwritten is not None and not code:
        code = FAILED
        if unwritten.errno != errno.EPIPE:  # who reads a pipe and has seen enough needs no message
            _refused(f"standard output: {unwritten.strerror}", code)
    if code > SIGNALLED:
        # All is put in order; but a thread may wait for a store that hangs, and Python would wait for the thread.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    """Its exit code."""
    try:
        app()
    except SystemExit as ended:
        interrupted = getattr(ended.__context__, "__cause__", None)  # typer makes 130 of every KeyboardInterrupt
        if isinstance(interrupted, Interrupted):
            return _refused("interrupted", interrupted.exit_code)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except (ConfigurationError, InvalidArgument) as error:
        return _refused(error, MISCONFIGURED)
    except (MeshError, DidNotStart) as error:
        return _refused(error, FAILED)
    except OSError as error:  # where no module says it better: a full disk, a folder that we may not write to
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # A write beyond the buffer is dropped as it fails: only another one tells whether it was standard output's.
        where = error.filename or ("standard output" if _flushed("\n" if full else "") is not None else None)
        said = error.strerror or str(error) or type(error).__name__
        return _refused(said if where is None else f"{where}: {said}", FAILED)
    return 0


def _flushed(more: str = "") -> OSError | None:
    """Why standard output takes no more. What is left in its buffer is dropped then: the interpreter would try."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(more)
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _refused(error: Exception | str, code: int) -> int:
    print(f"banditmesh: {error}", file=sys.stderr)
    return code
