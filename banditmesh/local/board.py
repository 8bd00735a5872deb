"""What the parts of the mesh are doing: one changing line a part on a terminal, else one line a change."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_GOOD, _BAD = ("ready", "stopped"), ("did not start",)


class Board:
    """Give ``tell`` to :class:`banditmesh.local.stack.LocalMesh` as its ``progress``. On a terminal the lines vanish in
    the end, unless it ends with an error.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._parts: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._spinner = Spinner("dots")
        self._live = Live(self, console=console, refresh_per_second=10, transient=True)

    def tell(self, part: str, what: str) -> None:
        """A part does something now; from any thread."""
        with self._lock:
            self._parts[part] = (what, time.monotonic())
        if not self._console.is_terminal:
            self._console.print(f"{part}: {what}", highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.transient = error is None or isinstance(error, KeyboardInterrupt)
            self._live.stop()

    def __rich__(self) -> RenderableType:
        lines = Table.grid(padding=(0, 2))
        with self._lock:
            parts = dict(self._parts)
        width = max(map(len, parts), default=0)
        for part, (what, since) in parts.items():
            lines.add_row(self._mark(what), part.ljust(width), self._said(what, time.monotonic() - since))
        return lines

    def _mark(self, what: str) -> RenderableType:
        if what.startswith(_GOOD):
            return Text("✔", "green")
        if what.startswith(_BAD):
            return Text("✘", "red")
        return self._spinner

    @staticmethod
    def _said(what: str, for_s: float) -> Text:
        done = what.startswith((*_GOOD, *_BAD))
        return Text(what if done or for_s < 1 else f"{what}, {for_s:.0f} s", "dim" if what.startswith(_GOOD) else "")
