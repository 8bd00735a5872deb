"""One selection through the whole loop, step by step: what ``banditmesh verify`` and ``helm test`` run."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from banditmesh.client import ClientLimits, MeshClient, Selected, click, shown
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2, crs_engine_pb2_grpc
from banditmesh.demo.imports import import_file
from banditmesh.demo.outcome import ExamplesReader
from banditmesh.demo.report import Examples
from banditmesh.demo.target import Target
from banditmesh.runtime.channels import failed_call
from banditmesh.runtime.errors import MeshError, Unavailable

CONTENT = "banditmesh-hello"
_ASK_EVERY_S = 0.5
_CALL_S = 5.0


@dataclass
class Loop:
    """Verifies a mesh.

    Attributes:
        target: The mesh.
        examples_topic: Where examples come out.
        placement: The placement that is asked.
        user: The user that is asked for.
        say: Told of each step.
    """

    target: Target
    examples_topic: str
    placement: str
    user: str
    say: Callable[[str], None]
    _began: float = field(default_factory=time.monotonic)

    async def run(self, import_into: str | None, timeout_s: float) -> None:
        """Go once around the loop.

        Args:
            import_into: ``service/logic`` that gets a mapping for the user first; None: there is one.
            timeout_s: For all of it.

        Raises:
            Unavailable: It did not come around in time; the message names the step.
            MeshError: A service refused a step.
            ImportFailed: The importer refused the mapping.
        """
        step = ["import a mapping"]
        try:
            async with asyncio.timeout(timeout_s):
                await self._around(import_into, step)
        except TimeoutError as error:
            raise Unavailable(f"the loop did not close within {timeout_s:g} s; it stands at: {step[0]}") from error

    async def _around(self, import_into: str | None, step: list[str]) -> None:
        if import_into is not None:
            service, logic = import_into.split("/")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{service}-{logic}.csv"
                path.write_text(f"user_id,contents\n{self.user},{CONTENT}\n")
                job = await import_file(self.target, path, service, logic, version=f"verify-{time.time():.0f}")
            self._say(f"imported a mapping of {job.progress.rows} row into {import_into}")
        step[0] = "read the model's version"
        before = await self._versions()
        examples = Examples()
        reader = ExamplesReader(self.target.kafka, self.examples_topic, examples)
        await reader.start()
        try:
            limits = ClientLimits(deadline_s=_CALL_S)
            async with self.target.client(limits) as client:
                step[0] = f"a selection for {self.user!r} in {self.placement!r}"
                try:
                    selection = await self._select(client)
                except MeshError as error:
                    raise failed_call(error, "engine", self.target.engine, "--engine") from error
                origin = selection.origin.name.lower()
                self._say(f"selected {selection.service}/{selection.content_id}, out of: {origin}")
                step[0] = "the tracker takes an impression and a click"
                try:
                    for refused in await client.track([shown(selection), click(selection)]):
                        if refused is not None:
                            raise refused
                except MeshError as error:
                    raise failed_call(error, "tracker", self.target.tracker, "--tracker") from error
                self._say("the tracker has acknowledged an impression and a click")
            step[0] = "an example comes out of the joiner"
            while selection.impression_id not in examples.copies:
                await reader.read(_ASK_EVERY_S)
            self._say("the joiner has made an example of them")
        finally:
            await reader.stop()
        step[0] = f"a newer model than {before} in the engine"
        while True:
            versions = await self._versions()
            if any(version > before.get(model, 0) for model, version in versions.items()):
                break
            await asyncio.sleep(_ASK_EVERY_S)
        self._say(f"the engine has loaded what the learner made of it: {versions}")

    async def _select(self, client: MeshClient) -> Selected:
        """What is selected, once the mapping has reached the engine."""
        while True:
            answer = await client.select(self.placement, self.user)
            if isinstance(answer, Selected):
                return answer
            await asyncio.sleep(_ASK_EVERY_S)

    async def _versions(self) -> dict[str, int]:
        """The version of each model that an engine has loaded; several engines may differ for a moment."""
        async with self.target.channel(self.target.engine) as channel:
            stub = crs_engine_pb2_grpc.CrsEngineServiceStub(channel)
            request = crs_engine_pb2.GetModelStatusRequest(placement=self.placement)
            try:
                status = await stub.GetModelStatus(
                    request, timeout=_CALL_S, wait_for_ready=True, metadata=self.target.metadata
                )
            except grpc.aio.AioRpcError as error:
                raise failed_call(error, "engine", self.target.engine, "--engine") from error
        return {model.model: int(model.version) for model in status.models}

    def _say(self, what: str) -> None:
        self.say(f"{time.monotonic() - self._began:6.1f} s  {what}")
