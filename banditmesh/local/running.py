"""What is started and stopped: a server, a cluster of them, the whole mesh; as a context manager it stops by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """Something with a start and a stop."""

    @abstractmethod
    def start(self) -> Self:
        """Start it and wait until it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it; does nothing when it does not run."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
