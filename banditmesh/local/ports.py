"""Free ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 10_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free(n: int) -> tuple[int, ...]:
    """n different ports that nobody listens on right now.

    They lie below the range that the kernel gives to outgoing connections. From within it (what ``bind(0)`` answers) a
    client that keeps reconnecting to a server which is down sooner or later gets the server's own port as its source
    port: it is then connected to itself, and the server cannot come back.

    Until the server binds them, somebody else may: who starts a server must be ready to try again with others, see
    :class:`banditmesh.local.server.Server`.
    """
    highest = _lowest_ephemeral() - 1
    found: set[int] = set()
    chance = random.SystemRandom()  # two processes that ask at the same time must not walk through the same ports
    while len(found) < n:
        port = chance.randint(LOWEST, highest)
        if port not in found and is_free(port):
            found.add(port)
    return tuple(found)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now (as servers do, with SO_REUSEADDR)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _lowest_ephemeral() -> int:
    if not EPHEMERAL_RANGE.exists():
        return 32_768
    lowest = int(EPHEMERAL_RANGE.read_text().split()[0])
    return lowest if lowest > LOWEST + 1_000 else 32_768
