"""What every command with ``--plot`` checks before its work, not after it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from banditmesh.output import check_output
from banditmesh.runtime.errors import FailedPrecondition


def check_plot(plot: Path | None) -> None:
    """Raises FailedPrecondition without matplotlib, InvalidArgument where it could not be drawn."""
    if plot is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise FailedPrecondition("--plot needs matplotlib", hint='pip install "banditmesh[local]"')
    check_output(plot, "plot")
