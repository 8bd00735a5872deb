"""The tracker's composition root."""

from __future__ import annotations

from banditmesh.contracts.tracker.v1 import tracker_pb2, tracker_pb2_grpc
from banditmesh.runtime.kafka.gate import topics_of
from banditmesh.runtime.kafka.producer import Producer, ProducerLimits
from banditmesh.runtime.memory import freeze_heap
from banditmesh.runtime.mesh import load_mesh
from banditmesh.runtime.serve import Server
from banditmesh.runtime.token import KeyRing
from services.tracker.intake import Intake
from services.tracker.metrics import TrackerMetrics
from services.tracker.servicer import EventTrackerServicer
from services.tracker.settings import TrackerSettings
from services.tracker.tracker import Tracker

SERVICE = tracker_pb2.DESCRIPTOR.services_by_name["EventTrackerService"]


async def bootstrap(settings: TrackerSettings, server: Server) -> None:
    """Build the tracker and register it with the server.

    Raises:
        ConfigurationError: mesh.yaml, the token keys or the topics are wrong.
    """
    mesh = load_mesh(settings.config, server.mesh_text)
    server.guard(mesh.access)
    keys = KeyRing.parse(settings.token_keys.get_secret_value())
    topics, _ = await topics_of(
        server, settings.kafka, mesh, rests_on=lambda topics: (topics.impressions, topics.reactions)
    )
    producer = Producer(
        settings.kafka,
        client_id="tracker",
        limits=ProducerLimits(ack_timeout_s=settings.ack_timeout_s, max_bytes=settings.max_waiting_bytes),
    )
    server.on_stop("kafka producer", producer.stop)
    metrics = TrackerMetrics(server.registry)
    metrics.watch_producer(producer)
    refuses = "not ready; events are refused with UNAVAILABLE and the delay after which to send them again"
    server.check("kafka", producer.ping, interval_s=2.0, meanwhile=refuses, where=str(settings.kafka))
    tracker = Tracker(Intake(mesh, keys, topics, server.clock), producer, metrics, server.clock)
    server.add_service(
        SERVICE, tracker_pb2_grpc.add_EventTrackerServiceServicer_to_server, EventTrackerServicer(tracker)
    )
    freeze_heap()
