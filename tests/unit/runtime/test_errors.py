"""Typed errors and their form on the wire."""

from __future__ import annotations

from typing import TypeVar

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from banditmesh.runtime import errors
from banditmesh.runtime.errors import ConfigurationError, InvalidArgument, MeshError, to_status

Detail = TypeVar("Detail", bound=Message)


def detail(status: status_pb2.Status, kind: type[Detail]) -> Detail:
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__}")


def test_a_message_says_what_with_which_value_and_what_to_do() -> None:
    error = InvalidArgument("no such placement", field="placement", value="hoem", hint="there is home")
    assert str(error) == "no such placement; field placement (got 'hoem'); there is home"
    assert to_status(error).message == str(error)


def test_the_reason_is_the_class_name_for_machines() -> None:
    info = detail(to_status(errors.FailedPrecondition("x"), request_id="r1"), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("FAILED_PRECONDITION", "banditmesh")
    assert info.metadata["request_id"] == "r1"


def test_an_error_without_field_and_delay_has_neither_detail() -> None:
    assert len(to_status(errors.Aborted("x")).details) == 1


def test_a_long_value_is_shortened_to_80_characters() -> None:
    error = InvalidArgument("too long", field="name", value="x" * 1000)
    assert error.shown_value is not None
    assert len(error.shown_value) == 80
    violation = detail(to_status(error), error_details_pb2.BadRequest)
    assert violation.field_violations[0].description.count("x") < 80


def test_a_status_stays_below_what_http_trailers_carry_whatever_goes_in() -> None:
    long = "長" * 100_000
    error = InvalidArgument(long, field=long, value=long, hint=long, metadata={"key": long})
    status = to_status(error)
    percent_encoded, base64 = 3 * len(status.message.encode()), 4 * len(status.SerializeToString()) / 3
    assert percent_encoded + base64 < 8192


def test_every_subclass_has_a_code_of_its_own() -> None:
    kinds = MeshError.__subclasses__()
    codes = {kind.code for kind in kinds}
    assert len(codes) == len(kinds)
    assert grpc.StatusCode.UNKNOWN not in codes


def test_configuration_problems_are_listed_one_a_line() -> None:
    error = ConfigurationError(
        "mesh.yaml is wrong:", ("services.x: unknown key", "placements: missing"), hint="see docs"
    )
    assert str(error).splitlines() == [
        "mesh.yaml is wrong:",
        "  - services.x: unknown key",
        "  - placements: missing",
        "see docs",
    ]


def refused(details: bytes) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", details))
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing, "no room")


@pytest.mark.parametrize(
    "details",
    [
        b"\xff\xff no status",
        status_pb2.Status(code=5, message="another one").SerializeToString(),
        status_pb2.Status(
            code=14,
            message="no room",
            details=[any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff")],
        ).SerializeToString(),
    ],
    ids=["garbage", "of another error", "garbage in a detail"],
)
def test_an_error_whose_details_cannot_be_read_is_still_that_error(details: bytes) -> None:
    error = errors.from_rpc_error(refused(details))
    assert isinstance(error, errors.Unavailable)
    assert "no room" in str(error)
    assert error.retry_after_s is None


@pytest.mark.parametrize(("nanos", "waits_s"), [(-500_000_000, 0.0), (2_000_000_000, 2.0)])
def test_a_delay_out_of_range_is_no_failure_of_its_own(nanos: int, waits_s: float) -> None:
    status = status_pb2.Status(code=14, message="no room")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.nanos = nanos
    status.details.add().Pack(retry)
    assert errors.from_rpc_error(refused(status.SerializeToString())).retry_after_s == waits_s


@pytest.mark.parametrize("delay_s", [0.0, 0.25, 3600.0])
def test_a_retry_delay_survives_exactly(delay_s: float) -> None:
    retry = detail(to_status(errors.Unavailable("x", retry_after_s=delay_s)), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == delay_s


def test_a_call_that_the_servers_transport_cut_off_may_be_tried_again() -> None:
    cut_off = grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata(), "CANCELLED")
    assert isinstance(errors.from_rpc_error(cut_off), errors.Unavailable)
