"""Free ports on 127.0.0.1."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOWEST = 10_000
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"
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


def held_by(port: int, pid: int) -> bool:
    """Whether the process itself listens on this port; True where the system does not say (elsewhere than on Linux)."""
    held = set(_descriptors(pid))
    listening = [inode for table in _TABLES if table.exists() for inode in _listening(table, port)]
    return not _TABLES[0].exists() or any(f"socket:[{inode}]" in held for inode in listening)


def _descriptors(pid: int) -> Iterator[str]:
    """What its open files are; none of one that has ended, or is another user's."""
    with suppress(OSError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                yield os.readlink(each)


def _listening(table: Path, port: int) -> Iterator[str]:
    for line in table.read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
            yield inode


def _lowest_ephemeral() -> int:
    if not EPHEMERAL_RANGE.exists():
        return 32_768
    lowest = int(EPHEMERAL_RANGE.read_text().split()[0])
    return lowest if lowest > LOWEST + 1_000 else 32_768
