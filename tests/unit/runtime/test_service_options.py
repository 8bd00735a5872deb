"""What ``services`` of ``mesh.yaml`` may say of Data Providers, and how long a time may be."""

from __future__ import annotations

import pytest

from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import Mesh, parse_mesh


def mesh(provider: str, window: str = "10m") -> Mesh:
    return parse_mesh(
        f"services: {{weather: {{logics: [today], provider: '{provider}'}}}}\n"
        f"placements: {{home: {{sources: [weather/today]}}}}\njoin: {{window: {window}}}\n"
    )


@pytest.mark.parametrize(
    "provider",
    [
        "weather:50051",
        "dns:///weather.team-a.svc:50051",
        "dns://8.8.8.8/weather:50051",
        "ipv4:10.0.0.1:50051,10.0.0.2:50051",
        "ipv6:[::1]:50051",
        "unix:/run/weather.sock",
    ],
)
def test_a_provider_is_a_grpc_address(provider: str) -> None:
    assert mesh(provider).services["weather"].provider == provider


@pytest.mark.parametrize(
    "provider",
    [
        "http://weather:50051",
        "https://weather",
        "weather",
        "dns:///weather",
        "weather:0",
        "weather:70000",
        ":50051",
        "",
    ],
)
def test_what_is_no_grpc_address_is_refused_with_one_that_is(provider: str) -> None:
    with pytest.raises(ConfigurationError, match=r"services\.weather\.provider.*write it like dns:///weather:50051"):
        mesh(provider)


def test_a_time_of_more_than_a_hundred_years_is_a_slip() -> None:
    with pytest.raises(ConfigurationError, match=r"join\.window: '99999999999d' is longer than 36500d"):
        mesh("weather:50051", "99999999999d")
