"""Builds the learner: the only place where its clients are made."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from banditmesh.contracts.learner.v1 import learner_pb2, learner_pb2_grpc
from banditmesh.runtime.deadletters import Unreadable, dead_letter
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.producer import Producer
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.lifecycle import EndProcess
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.memory import freeze_heap
from banditmesh.runtime.mesh import load_mesh
from banditmesh.runtime.outages import outages
from banditmesh.runtime.serve import Server
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import connect
from banditmesh.runtime.stream import Consumed
from services.learner.archiving.bootstrap import Archivers, archive
from services.learner.catalog import Catalog
from services.learner.density_events import REMEMBERED
from services.learner.density_learner import CLICKS, DensityLearner
from services.learner.evaluations import EVALUATION_DEADLINE_S, Evaluations
from services.learner.experiments import Experiments
from services.learner.learner import Learner
from services.learner.metrics import LearnerMetrics
from services.learner.owned import Owned
from services.learner.positions import Positions
from services.learner.publisher import Publisher
from services.learner.reader import KafkaReader, Known
from services.learner.rollback import Rollback
from services.learner.servicer import LearnerServicer
from services.learner.settings import LearnerSettings, ordinal_of

log = get_logger(__name__)

SERVICE = learner_pb2.DESCRIPTOR.services_by_name["LearnerService"]
FINAL_SNAPSHOTS_S = 30.0


@dataclass(frozen=True)
class Parts:
    """What was built, for a test that wants to look inside."""

    learner: Learner
    publisher: Publisher
    experiments: Experiments
    archivers: Archivers
    densities: DensityLearner


async def bootstrap(settings: LearnerSettings, server: Server) -> None:
    """Register the learner with a server, in a process of its own. Raises ConfigurationError."""
    await build(settings, server)
    freeze_heap()


async def build(settings: LearnerSettings, server: Server) -> Parts:
    """See `bootstrap`."""
    mesh = await asyncio.to_thread(load_mesh, settings.config, server.mesh_text)
    ordinal = ordinal_of(settings)
    catalog = await asyncio.to_thread(Catalog, mesh)
    owned = await asyncio.to_thread(Owned.of, catalog, mesh, ordinal, settings.replicas)
    server.guard(mesh.access)
    server.run_alone()
    shards, tallies = owned.models, owned.tallies
    learned = [*shards.values(), *tallies.values()]
    log.info("shards of this learner", ordinal=ordinal, replicas=settings.replicas, shards=sorted(shards))

    metrics = LearnerMetrics(server.registry)
    topics = Topics.named(mesh.kafka.topic_prefix)
    store = connect(settings.store)
    snapshots = Snapshots(store, settings.model_cache)
    producer = Producer(settings.kafka, client_id=f"learner-{ordinal}")
    thread = ThreadPoolExecutor(1, thread_name_prefix="learning")

    group = f"{mesh.kafka.topic_prefix}learner-{ordinal}"

    def open_reader(known: Known) -> KafkaReader:
        return KafkaReader(settings.kafka, topics.examples, group, known)

    async def give_up(record: Consumed, error: Unreadable) -> None:
        origin = record._replace(topic=topics.examples)
        while True:
            room = producer.sizes.room(topics.dead_letters)
            letter = dead_letter(origin, error, consumer="learner", topic=topics.dead_letters, most_bytes=room)
            try:
                await producer.send_many([letter])
                outages.well("dead letters")
                return
            except Unavailable as away:
                outages.failed("dead letters", away)
                await server.clock.sleep(away.retry_after_s or 1.0)

    learning = asyncio.Lock()
    publisher = Publisher(
        snapshots,
        Positions(store),
        learned,
        learning,
        thread,
        server.clock,
        metrics,
        keep=settings.snapshots_kept,
    )
    learner = Learner(
        learned,
        catalog.placements,
        open_reader,
        give_up,
        publisher.restore_one,
        learning,
        thread,
        server.clock,
        metrics,
        stall_after_s=mesh.learning.stall_after,
    )
    rollback = Rollback(snapshots, publisher, learner, thread, server.clock)
    sums_thread = ThreadPoolExecutor(1, thread_name_prefix="densities")
    densities = DensityLearner(
        owned.densities,
        lambda which, known: KafkaReader(
            settings.kafka,
            topics.reactions if which == CLICKS else topics.impressions,
            f"{group}-density-{which}",
            known,
            look_back=REMEMBERED,
        ),
        snapshots,
        sums_thread,
        server.clock,
        metrics,
    )
    experiments = Experiments(
        mesh.placements,
        tallies,
        store,
        snapshots,
        learning,
        thread,
        server.clock,
        metrics,
        who=f"learner {ordinal}",
    )
    evaluations = Evaluations(mesh.placements, store, server.clock)
    methods = (f"/{SERVICE.full_name}/{name}" for name in ("EvaluatePolicy", "WatchEvaluation"))
    deadlines_s = {**server.options.deadlines_s, **dict.fromkeys(methods, EVALUATION_DEADLINE_S)}
    server.options = dataclasses.replace(server.options, deadlines_s=deadlines_s)
    servicer = LearnerServicer(
        catalog,
        shards,
        store,
        snapshots,
        publisher,
        rollback,
        experiments,
        evaluations,
        densities,
        ordinal=ordinal,
        replicas=settings.replicas,
    )

    began = asyncio.Event()

    async def watch() -> None:
        await began.wait()
        await experiments.watch()

    async def learn() -> None:
        await publisher.restore()
        await experiments.begin()
        began.set()
        await learner.run()

    async def publish() -> None:
        await publisher.run(mesh.learning.snapshot_every)

    async def publish_the_rest() -> None:
        await publisher.publish_all()
        await densities.publish_all()
        thread.shutdown()
        sums_thread.shutdown()

    server.add_service(SERVICE, learner_pb2_grpc.add_LearnerServiceServicer_to_server, servicer)
    server.check(
        "kafka",
        producer.ping,
        meanwhile="not ready; learning waits, and goes on where it stood",
        where=str(settings.kafka),
    )
    server.check(
        "store",
        store.ping,
        critical=False,
        meanwhile="learning goes on; snapshots are published once it is back",
        where=store.location,
    )
    # After a crash the models in memory cannot be trusted, nor, once superseded, whose they are. A fresh process
    # starts from the newest snapshots.
    server.background("learn", learn, on_crash=EndProcess())
    server.background("publish", publish, on_crash=EndProcess())
    server.background("experiments", watch, critical=False)
    server.background("densities", densities.run, on_crash=EndProcess())
    server.on_stop("store", store.close)
    archivers = archive(settings, mesh, topics, store, server, ordinal)
    server.on_stop("dead letters", producer.stop)
    server.on_stop("last snapshots", publish_the_rest, deadline_s=FINAL_SNAPSHOTS_S)
    return Parts(learner, publisher, experiments, archivers, densities)
