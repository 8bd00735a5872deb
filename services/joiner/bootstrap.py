"""The joiner's composition root: the only place where its clients are built."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakValueDictionary

from banditmesh.contracts.joiner.v1 import joiner_pb2, joiner_pb2_grpc
from banditmesh.runtime.kafka.consumer import KafkaSource
from banditmesh.runtime.kafka.gate import topics_of
from banditmesh.runtime.kafka.metrics import StreamMetricsFamily
from banditmesh.runtime.kafka.producer import Producer
from banditmesh.runtime.kafka.sizes import MessageSizes
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from banditmesh.runtime.memory import freeze_heap
from banditmesh.runtime.mesh import Mesh, load_mesh
from banditmesh.runtime.metrics import RedisMetrics
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.redis_health import RedisHealth
from banditmesh.runtime.serve import Server
from banditmesh.runtime.stream import Offsets, Stream, StreamOptions
from services.joiner.impressions import ImpressionsProcessor
from services.joiner.ledger import MARKS, REACTIONS, SHOWN, Ledger, Lifetimes
from services.joiner.metrics import JoinerMetrics
from services.joiner.reactions import ReactionsProcessor
from services.joiner.servicer import JoinerServicer
from services.joiner.settings import JoinerSettings
from services.joiner.shown import ShownProcessor
from services.joiner.users import Users


async def bootstrap(settings: JoinerSettings, server: Server) -> None:
    """Build the joiner and register it with the server, which starts and stops it."""
    mesh = load_mesh(settings.config, server.mesh_text)
    server.guard(mesh.access)
    server.run_alone()
    kafka = settings.kafka
    topics, gate = await topics_of(server, kafka, mesh)
    redis = RedisClient(settings.redis, timeout_s=settings.redis_timeout_s, metrics=RedisMetrics(server.registry))
    server.on_stop("redis", redis.close)
    sizes = MessageSizes(server.clock.monotonic_s)
    producer = Producer(kafka, client_id=settings.client_id, sizes=sizes)
    server.on_stop("producer", producer.stop)

    clock = server.clock
    metrics = JoinerMetrics(server.registry)
    stream_metrics = StreamMetricsFamily(server.registry)
    redis_health = RedisHealth(redis, relies=True)
    options = StreamOptions(
        tick_every_s=mesh.join.tick_every,
        batch=settings.batch,
        buffer=4 * settings.batch,
        may_work=redis_health.may_be_relied_on,
    )
    lifetimes = lifetimes_of(mesh)
    users = Users(redis)
    impressions: dict[int, ImpressionsProcessor] = {}
    reactions: dict[int, ReactionsProcessor] = {}
    reactions_group = f"{mesh.kafka.topic_prefix}joiner-reactions"
    impressions_group = f"{mesh.kafka.topic_prefix}joiner-impressions"
    shown_group = f"{mesh.kafka.topic_prefix}joiner-shown"
    # Weakly: a stream knows what opens its partitions, and if that knew the stream, neither would ever be freed.
    streams: WeakValueDictionary[str, Stream] = WeakValueDictionary()

    def new_source(topic: str, group: str) -> KafkaSource:
        return KafkaSource(
            kafka, topic, group, client_id=settings.client_id, session_timeout_s=settings.session_timeout_s
        )

    async def open_reactions(partition: int, offsets: Offsets) -> ReactionsProcessor:
        ledger = Ledger(redis, partition, lifetimes)
        return ReactionsProcessor(
            partition,
            offsets,
            ledger.checkpoint(REACTIONS, await offsets.log(partition)),
            ledger=ledger,
            users=users,
            producer=producer,
            topics=topics,
            window_ms=round(mesh.join.window * 1000),
            slack_ms=round(mesh.join.slack * 1000),
            rollout_until_s=mesh.join.rollout_until_s,
            clock=clock,
            metrics=metrics,
            owned=reactions,
            last_end=lambda of: streams["reactions"].end_offset(of),
            remembers=mesh.remembers(),
        )

    async def open_impressions(partition: int, offsets: Offsets) -> ImpressionsProcessor:
        log_number = await offsets.log(partition)
        transactions = await TransactionalProducer.open(kafka, f"{impressions_group}-{partition}", sizes)
        ledger = Ledger(redis, partition, lifetimes)
        return ImpressionsProcessor(
            partition,
            offsets,
            transactions,
            ledger.checkpoint(MARKS, log_number),
            ledger=ledger,
            topics=topics,
            group=impressions_group,
            mesh=mesh,
            mark_ms=lifetimes.mark_ms,
            clock=clock,
            metrics=metrics,
            owned=impressions,
            last_end=lambda of: streams["impressions"].end_offset(of),
        )

    async def open_shown(partition: int, offsets: Offsets) -> ShownProcessor:
        return ShownProcessor(
            partition,
            offsets,
            Ledger(redis, partition, lifetimes).checkpoint(SHOWN, await offsets.log(partition)),
            users=users,
            horizon_ms=round((mesh.join.window + mesh.join.slack) * 1000),
            clock=clock,
            metrics=metrics,
            last_end=lambda of: streams["shown"].end_offset(of),
        )

    reactions_stream = Stream(
        "reactions",
        lambda: new_source(topics.reactions, reactions_group),
        open_reactions,
        options=options,
        clock=clock,
        metrics=stream_metrics.stream("reactions"),
    )
    # A transaction is five round trips, whatever is in it.
    joining = replace(options, batch=4 * settings.batch, buffer=8 * settings.batch)
    impressions_stream = Stream(
        "impressions",
        lambda: new_source(topics.impressions, impressions_group),
        open_impressions,
        options=joining,
        clock=clock,
        metrics=stream_metrics.stream("impressions"),
    )
    shown_stream = Stream(
        "shown",
        lambda: new_source(topics.impressions, shown_group),
        open_shown,
        options=options,
        clock=clock,
        metrics=stream_metrics.stream("shown"),
    )
    streams |= {"reactions": reactions_stream, "impressions": impressions_stream, "shown": shown_stream}
    server.background("reactions", gate.then(reactions_stream.run))
    server.background("shown", gate.then(shown_stream.run))
    server.background("impressions", gate.then(impressions_stream.run))
    waits = "not ready; joining waits, and goes on where it stood"
    server.check("redis", redis_health.writable, interval_s=1.0, meanwhile=waits, where=str(redis.address))
    server.check("redis settings", redis_health.keeps, interval_s=10.0, silence_of="redis", where=str(redis.address))
    server.check("kafka", producer.ping, interval_s=2.0, timeout_s=5.0, meanwhile=waits, where=str(settings.kafka))
    server.check("reactions stream", reactions_stream.probe, interval_s=1.0)
    server.check("impressions stream", impressions_stream.probe, interval_s=1.0)
    server.check("shown stream", shown_stream.probe, interval_s=1.0)
    server.add_service(
        joiner_pb2.DESCRIPTOR.services_by_name["JoinerService"],
        joiner_pb2_grpc.add_JoinerServiceServicer_to_server,
        JoinerServicer(impressions, reactions, users, redis, clock),
    )
    freeze_heap()


def lifetimes_of(mesh: Mesh) -> Lifetimes:
    """How long reactions and closed marks are needed.

    An impression may come up to ``token.max_age`` after its decision, and so may its second copy and its reactions; it
    is closed a window later, by a joiner that may be ``slack`` behind. Reactions may come before the impression:
    another window.
    """
    mark_s = mesh.token.max_age + mesh.join.window + mesh.join.slack
    return Lifetimes(reaction_ms=round((mark_s + mesh.join.window) * 1000), mark_ms=round(mark_s * 1000))
