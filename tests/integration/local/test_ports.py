"""Free ports."""

from __future__ import annotations

import os
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


def test_a_port_is_held_by_the_process_that_listens_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ports.held_by(port, os.getpid())
        assert not ports.held_by(port, os.getppid())
        assert not ports.held_by(port, 2**30)
    assert not ports.held_by(port, os.getpid())
