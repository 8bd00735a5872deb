"""HDFS: whether its NameNode can be reached and what it asks for, found out before the client tries.

``hdfs-native`` 0.14.7 tries again for three minutes whatever is wrong, and then says "connection refused" even of a
NameNode that wants Kerberos. So a NameNode is asked first, by the first two messages of Hadoop's RPC protocol
(``RpcHeader.proto``: the connection header, then a SASL negotiation, which every NameNode answers).
"""

from __future__ import annotations

import os
import socket
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from ctypes.util import find_library
from pathlib import Path

from banditmesh.runtime.errors import printable
from services.importer.failure import Failure, ImportFailed

DEFAULT_PORT = 8020
CONNECT_TIMEOUT_S = 1.5
ANSWER_TIMEOUT_S = 2.0
_SASL = 0xDF
_TLS_ALERT = b"\x15\x03"
_MOST_SHOWN = 60
_CONNECTION = b"hrpc" + bytes([9, 0, _SASL])
# RpcRequestHeaderProto: rpcKind = protocol buffer, rpcOp = final packet, callId = -33 (SASL), retryCount = -1.
_REQUEST = b"\x08\x02\x10\x00\x18\x41\x22\x00\x28\x01"
_NEGOTIATE = b"\x10\x01"  # RpcSaslProto: state = NEGOTIATE
_ADVICE = (
    "Kerberos needs HADOOP_CONF_DIR with core-site.xml (hadoop.security.authentication: kerberos), a ticket in "
    "KRB5CCNAME or a keytab in KRB5_CLIENT_KTNAME, and the library libgssapi_krb5"
)


def check_namenodes(host: str, environ: Mapping[str, str] = os.environ) -> None:
    """Return when a NameNode of ``host`` (``name:port``, or a nameservice) can be used; blocks 4 s for each at most.

    Raises:
        ImportFailed: ``source_unavailable`` with what is missing: an address, a NameNode that answers, credentials.
    """
    try:
        settings = _settings(environ)
    except (ElementTree.ParseError, OSError) as error:
        raise unavailable(host, f"Hadoop's configuration is broken: {error}") from error
    problems = []
    for name, port in _namenodes(host, settings):
        problem = _problem(name, port, settings, environ)
        if not problem:
            return
        problems.append(f"{name}:{port} {problem}")
    raise unavailable(host, "; ".join(problems))


def unavailable(host: str, why: str) -> ImportFailed:
    """The failure of a job whose file system cannot be used."""
    return ImportFailed(Failure("source_unavailable", f"hdfs://{host} cannot be read: {why}", file=f"hdfs://{host}"))


def _problem(name: str, port: int, settings: Mapping[str, str], environ: Mapping[str, str]) -> str:
    try:
        answer = _ask(name, port)
    except socket.gaierror:
        return (
            "is no host name that resolves; a nameservice needs HADOOP_CONF_DIR with the hdfs-site.xml that lists its "
            "NameNodes"
        )
    except TimeoutError:
        return "does not answer; check the address, and that a network policy or firewall lets the importer through"
    except OSError as error:
        return f"cannot be reached ({error.strerror or error}); check host and port (the RPC port, usually 8020)"
    if spoken := _spoken(answer):
        return f"{spoken}: it is not the RPC port of a NameNode; that is usually 8020, beside 9870 and 9871 for the web"
    return _credentials_problem(settings, environ) if b"KERBEROS" in answer and b"SIMPLE" not in answer else ""


def _spoken(answer: bytes) -> str:
    """What a server does that is no NameNode; empty: it is one."""
    if not answer:
        return "closes the connection without a word"
    if answer.startswith(_TLS_ALERT):
        return "speaks TLS"
    if answer.startswith((b"HTTP", b"<")):
        first = answer.splitlines()[0][:_MOST_SHOWN].decode(errors="replace")
        return f"speaks HTTP ({printable(first)})"
    return ""


def _credentials_problem(settings: Mapping[str, str], environ: Mapping[str, str]) -> str:
    missing = ""
    if settings.get("hadoop.security.authentication", "simple").lower() != "kerberos":
        missing = "HADOOP_CONF_DIR does not configure it"
    elif not any(_exists(environ.get(each, default)) for each, default in _credentials()):
        missing = "there is neither a ticket nor a keytab"
    elif find_library("gssapi_krb5") is None:
        missing = "libgssapi_krb5 is not installed"
    return f"wants Kerberos credentials, and {missing}; {_ADVICE}" if missing else ""


def _credentials() -> tuple[tuple[str, str], ...]:
    return ("KRB5CCNAME", f"/tmp/krb5cc_{os.getuid()}"), ("KRB5_CLIENT_KTNAME", "")


def _exists(location: str) -> bool:
    """Whether a credential cache or keytab is there; of one that is no file nothing can be said."""
    kind, colon, path = location.rpartition(":")
    return Path(path).exists() if path and kind in ("", "FILE") else bool(colon)


def _ask(name: str, port: int) -> bytes:
    with socket.create_connection((name, port), timeout=CONNECT_TIMEOUT_S) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        message = bytes([len(_REQUEST)]) + _REQUEST + bytes([len(_NEGOTIATE)]) + _NEGOTIATE
        connection.sendall(_CONNECTION + len(message).to_bytes(4, "big") + message)
        return connection.recv(4096)


def _namenodes(host: str, settings: Mapping[str, str]) -> list[tuple[str, int]]:
    name, _, port = host.partition(":")
    members = settings.get(f"dfs.ha.namenodes.{name}", "")
    addresses = [settings.get(f"dfs.namenode.rpc-address.{name}.{each.strip()}", "") for each in members.split(",")]
    pairs = [address.strip().partition(":") for address in addresses if address]
    return [(each, int(number or DEFAULT_PORT)) for each, _, number in pairs] or [(name, int(port or DEFAULT_PORT))]


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Hadoop's own configuration, from where ``hdfs-native`` reads it too."""
    folder = environ.get("HADOOP_CONF_DIR") or (
        f"{environ['HADOOP_HOME']}/etc/hadoop" if environ.get("HADOOP_HOME") else ""
    )
    found: dict[str, str] = {}
    for name in ("core-site.xml", "hdfs-site.xml") if folder else ():
        path = Path(folder) / name
        if path.exists():
            try:
                properties = ElementTree.parse(path).iter("property")
            except ElementTree.ParseError as error:
                raise ElementTree.ParseError(f"{path}: {error}") from None
            for each in properties:
                found[each.findtext("name", "").strip()] = each.findtext("value", "").strip()
    return found
