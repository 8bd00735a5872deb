"""Metric conventions."""

from __future__ import annotations

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from banditmesh.runtime.metrics import GrpcMetrics, ProcessMetrics, new_registry


def test_two_processes_in_one_test_do_not_meet() -> None:
    first, second = new_registry(), new_registry()
    GrpcMetrics(first).method("/s/M").finished(grpc.StatusCode.OK, 0.01)
    GrpcMetrics(second)
    labels = {"method": "/s/M", "code": "OK"}
    assert first.get_sample_value("banditmesh_grpc_requests_total", labels) == 1
    assert second.get_sample_value("banditmesh_grpc_requests_total", labels) is None


def test_a_registry_tells_of_the_process_itself() -> None:
    assert new_registry().get_sample_value("process_resident_memory_bytes")


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0009, "0.001"), (0.049, "0.05"), (4.9, "5.0"), (6.0, "+Inf")])
def test_a_time_falls_into_its_bucket(seconds: float, bucket: str) -> None:
    registry = CollectorRegistry()
    GrpcMetrics(registry).method("/s/M").finished(grpc.StatusCode.OK, seconds)
    at_most = {
        sample.labels["le"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "banditmesh_grpc_request_seconds_bucket"
    }
    assert next(le for le, count in at_most.items() if count) == bucket


def test_every_metric_has_our_prefix_and_a_meaning() -> None:
    registry = CollectorRegistry()
    GrpcMetrics(registry)
    ProcessMetrics(registry)
    for metric in registry.collect():
        assert metric.name.startswith("banditmesh_")
        assert metric.documentation
    assert b"# HELP banditmesh_dependency_up" in generate_latest(registry)
