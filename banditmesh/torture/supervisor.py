"""Keeps processes running, as Kubernetes would: what ends is started again, however often."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from banditmesh.local.process import DidNotStart
from banditmesh.torture.forked import ForkedProcess

_LOOK_EVERY_S: Final = 0.05
_AGAIN_AFTER_S: Final = 0.3
_THREADS: Final = 32
T = TypeVar("T")


@dataclass
class Replica:
    """A process of the mesh. ``wanted``: whether it should run; ``ready``: it has said that it serves since its last
    start; ``kills``: how often we have ended it."""

    service: str
    process: ForkedProcess
    wanted: bool = True
    ready: bool = False
    kills: int = 0
    stopped: bool = False
    """SIGSTOP: it is not dead, but does nothing."""
    ended: list[str] = field(default_factory=list)
    """How it has ended without our doing."""

    @property
    def name(self) -> str:
        """Such as ``joiner-1``."""
        return self.process.name


class Supervisor:
    """Runs replicas until :meth:`stop`."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="starts")

    def of(self, service: str) -> list[Replica]:
        """The replicas of a service."""
        return [each for each in self.replicas if each.service == service]

    def keep(self, replica: Replica) -> Replica:
        """Start it, and start it again whenever it ends."""
        self.replicas.append(replica)
        self._keeping[replica.name] = asyncio.create_task(self._keep(replica), name=f"keeps {replica.name}")
        return replica

    async def until_ready(self, replicas: Iterable[Replica], timeout_s: float) -> None:
        """Wait until they all serve. Raises TimeoutError."""
        wanted = list(replicas)
        async with asyncio.timeout(timeout_s):
            while not all(each.ready for each in wanted):  # noqa: ASYNC110 # seconds, and an event for each is no clearer
                await asyncio.sleep(_LOOK_EVERY_S)

    async def kill(self, replica: Replica) -> None:
        """SIGKILL, also while it starts."""
        replica.kills += 1
        replica.ready = replica.stopped = False
        await self.call(replica.process.kill)

    def suspend(self, replica: Replica) -> None:
        """SIGSTOP: it does nothing, and does not know."""
        replica.stopped = True
        os.kill(replica.process.pid, signal.SIGSTOP)

    def resume(self, replica: Replica) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        if replica.stopped and replica.process.running:
            os.kill(replica.process.pid, signal.SIGCONT)
        replica.stopped = False

    async def retire(self, replica: Replica) -> None:
        """SIGTERM, and let it go."""
        replica.wanted = False
        self.resume(replica)
        await self.call(replica.process.stop)
        self._keeping.pop(replica.name).cancel()
        self.replicas.remove(replica)

    async def call(self, act: Callable[[], T]) -> T:
        """Do what blocks in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    async def stop(self) -> None:
        """End all: in order where it takes no time, else at once."""
        for task in self._keeping.values():
            task.cancel()
        await asyncio.gather(*self._keeping.values(), return_exceptions=True)
        for replica in self.replicas:
            self.resume(replica)
        await asyncio.gather(*(self.call(each.process.kill) for each in self.replicas), return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def _keep(self, replica: Replica) -> None:
        process = replica.process
        while True:
            if replica.wanted and not process.running:
                replica.ready = False
                if process.returncode not in (None, -signal.SIGKILL):
                    replica.ended.append(f"exit code {process.returncode}: {process.log_end().splitlines()[-1:]}")
                with suppress(DidNotStart):
                    await self.call(process.start)
                    replica.ready = True
                    continue
                await asyncio.sleep(_AGAIN_AFTER_S)
            await asyncio.sleep(_LOOK_EVERY_S)
