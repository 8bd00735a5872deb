"""Free ports."""

from __future__ import annotations

import socket

from banditmesh.local import ports


def test_free_ports_differ_and_can_be_listened_on() -> None:
    found = ports.free(20)
    assert len(set(found)) == 20
    for port in found:
        with socket.create_server(("127.0.0.1", port)):
            assert not ports.is_free(port)


def test_no_outgoing_connection_ever_gets_one_of_them() -> None:
    lowest_ephemeral = int(ports.EPHEMERAL_RANGE.read_text().split()[0])
    assert max(ports.free(200)) < lowest_ephemeral
