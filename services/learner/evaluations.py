"""Policies judged on archived decisions, beside the learning: one at a time, cancellable."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from banditmesh.bandits.errors import BanditError
from banditmesh.lengths import MAX_NAME_BYTES
from banditmesh.replay.judgement import Judgement, judge
from banditmesh.replay.of_mesh import DAYS, rule_name, spool, target
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import InvalidArgument, NotFound, ResourceExhausted
from banditmesh.runtime.limits import check_text
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.store import Store

log = get_logger(__name__)

EVALUATION_DEADLINE_S: Final = 3600.0
"""Of calls whose client has set none."""
MAX_SPEC_BYTES: Final = 1000
_UPDATE_S: Final = 1.0


@dataclass(frozen=True)
class Question:
    """What to judge. Either ``variant`` or ``policy`` is said; see learner.proto."""

    placement: str
    variant: str
    policy: str
    explore: str
    start: datetime | None
    end: datetime | None
    without_rules: tuple[str, ...]


@dataclass(frozen=True)
class Update:
    """How far it is; with ``result``, what came out."""

    stage: str
    rows: int
    share: float
    result: Judgement | None = None


class _Cancelled(Exception):
    """The caller has gone."""


@dataclass
class _Work:
    """A judgement under way, as its thread tells of it."""

    gone: threading.Event = field(default_factory=threading.Event)
    newest: Update = Update("reading", 0, 0.0)

    def told(self, stage: str, rows: int, share: float) -> None:
        """Note how far it is. Raises _Cancelled, which ends the thread's work."""
        if self.gone.is_set():
            raise _Cancelled
        self.newest = Update(stage, rows, share)


class Evaluations:
    """One at a time: the thread shares the interpreter with the learning, and the disk holds the decisions."""

    def __init__(self, placements: Mapping[str, Placement], store: Store, clock: Clock) -> None:
        self._placements = placements
        self._store = store
        self._clock = clock
        self._busy = False

    async def run(self, question: Question) -> Judgement:
        """Judge; cancelling ends the work. Raises InvalidArgument, NotFound, ResourceExhausted, the store's errors."""
        return await self._run(question, _Work())

    async def watch(self, question: Question) -> AsyncIterator[Update]:
        """As `run`, with an update a second; the last one has the result."""
        work = _Work()
        task = asyncio.create_task(self._run(question, work))
        try:
            while not task.done():
                pause = asyncio.create_task(self._clock.sleep(_UPDATE_S))
                await asyncio.wait({task, pause}, return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
                if not task.done():
                    yield work.newest
            found = task.result()
            yield Update("done", found.rows, 1.0, found)
        finally:
            task.cancel()

    async def _run(self, question: Question, work: _Work) -> Judgement:
        placement = self._checked(question)
        without = tuple(dict.fromkeys(rule_name(placement, each) for each in question.without_rules))
        end = question.end or datetime.fromtimestamp(self._clock.now_s(), UTC)
        start = question.start or end - timedelta(days=DAYS)
        if start >= end:
            raise InvalidArgument("must be before end_time", field="start_time", value=start.isoformat())
        if self._busy:
            raise ResourceExhausted("another policy is being judged here", retry_after_s=60.0)
        self._busy = True
        thread: asyncio.Future[Judgement] | None = None
        folder = tempfile.TemporaryDirectory(prefix="judgement-")  # it outlives a cancellation
        try:
            spec = await target(
                self._store, question.placement, placement, question.variant or question.policy, question.explore
            )
            path = Path(folder.name) / "decisions.parquet"
            rows = await spool(
                self._store, question.placement, start, end, path, lambda n: work.told("reading", n, 0.0)
            )
            log.info("judging a policy", placement=question.placement, policy=spec.text, decisions=rows)
            thread = asyncio.get_running_loop().run_in_executor(
                None, lambda: judge(path, spec, without=without, progress=work.told)
            )
            return await asyncio.shield(thread)
        except BanditError as error:
            raise InvalidArgument(f"the policy cannot learn from these decisions: {error}", field="policy") from error
        finally:
            work.gone.set()
            if thread is None or thread.done():
                self._end(folder)
            else:  # it ends at its next step, and nobody waits for it
                thread.add_done_callback(lambda done: self._end(folder, done))

    def _end(self, folder: tempfile.TemporaryDirectory[str], done: asyncio.Future[Judgement] | None = None) -> None:
        if done is not None and not done.cancelled():
            done.exception()  # known, and of no interest any more
        folder.cleanup()
        self._busy = False

    def _checked(self, question: Question) -> Placement:
        check_text("placement", question.placement, MAX_NAME_BYTES)
        placement = self._placements.get(question.placement)
        if placement is None:
            known = f"there are: {', '.join(sorted(self._placements))}"
            raise NotFound("no such placement", field="placement", value=question.placement, hint=known)
        if bool(question.variant) == bool(question.policy):
            raise InvalidArgument("say either variant or policy", field="policy", value=question.policy)
        check_text("policy", question.policy, MAX_SPEC_BYTES, optional=True)
        check_text("explore", question.explore, MAX_SPEC_BYTES, optional=True)
        for key, said in (("policy", question.policy), ("explore", question.explore)):
            if said.endswith((".yaml", ".yml")):
                raise InvalidArgument("no files are read here; `banditmesh evaluate` does", field=key, value=said)
        variants = placement.experiment.variants
        if question.variant and question.variant not in variants:
            known = f"there are: {', '.join(variants)}"
            raise NotFound("no such variant", field="variant", value=question.variant, hint=known)
        return placement
