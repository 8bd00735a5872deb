"""What every command with ``--plot`` checks before its work, not after it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument


def check_plot(plot: Path | None) -> None:
    """Raises FailedPrecondition without matplotlib, InvalidArgument for a folder that is not there."""
    if plot is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise FailedPrecondition("--plot needs matplotlib", hint='pip install "banditmesh[local]"')
    if not plot.absolute().parent.is_dir():
        raise InvalidArgument("the folder does not exist", field="plot", value=str(plot))
