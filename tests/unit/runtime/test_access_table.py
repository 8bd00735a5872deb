"""What the ``access`` section of mesh.yaml may say."""

from __future__ import annotations

import pytest

from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import Mesh, parse_mesh

DIGEST = "ab" * 32
MESH = """
services:
  weather: {{logics: [today]}}
placements:
  head: {{sources: [weather/today]}}
access:
  callers:
    {callers}
"""


def parse(*callers: str) -> Mesh:
    return parse_mesh(MESH.format(callers="\n    ".join(callers)))


def test_a_caller_is_known_by_any_of_its_identities() -> None:
    mesh = parse(
        f'a: {{roles: [app, "service:weather"], spiffe: ["spiffe://x/a"], dns: [a.example], key_sha256: ["{DIGEST}"]}}'
    )
    assert mesh.access is not None
    assert mesh.access.identities() == {
        ("spiffe", "spiffe://x/a"): "a",
        ("dns", "a.example"): "a",
        ("key", DIGEST): "a",
    }


@pytest.mark.parametrize(
    ("callers", "problem"),
    [
        (["a: {roles: [app]}"], "access.callers.a: nothing to know it by"),
        (["a: {roles: [], dns: [x]}"], "access.callers.a.roles"),
        (["a: {roles: [admin], dns: [x]}"], "'admin' is no role; there are app, service:NAME and operator"),
        (["a: {roles: ['service:wether'], dns: [x]}"], "'wether' is no service; did you mean 'weather'?"),
        (["a: {roles: [app], key_sha256: [secret]}"], "sha256sum"),
        (["a: {roles: [app], spiffe: [app]}"], "access.callers.a.spiffe"),
        (["a: {roles: [app], dns: [x]}", "b: {roles: [operator], dns: [x]}"], "dns 'x' is a's already"),
        (["a: {roles: [app], dns: [x], calls_per_s: 0}"], "access.callers.a.calls_per_s"),
        (["a: {rolls: [app], dns: [x]}"], "did you mean 'roles'?"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_wrong(callers: list[str], problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(*callers)
    assert problem in str(refused.value)
