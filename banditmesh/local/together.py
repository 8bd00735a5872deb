"""Doing something with several servers at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from queue import SimpleQueue
from typing import TypeVar

from banditmesh.local.server import Server

ServerT = TypeVar("ServerT", bound=Server)


def together(servers: Collection[ServerT], act: Callable[[ServerT], object]) -> Iterator[BaseException | None]:
    """Call ``act`` with each server, each in a thread of its own, and yield as many results as they come: None, or what
    it raised.

    Whoever stops iterating (at the first error, or because of a Ctrl-C) waits for none of the others: the threads are
    daemons, since what one waits for, say Maven, may take minutes.
    """
    results: SimpleQueue[BaseException | None] = SimpleQueue()

    def one(server: ServerT) -> None:
        try:
            act(server)
        except BaseException as error:
            results.put(error)
        else:
            results.put(None)

    for server in servers:
        threading.Thread(target=one, args=(server,), name=f"{server.name}", daemon=True).start()
    for _ in servers:
        yield results.get()
