"""What is said of a NameNode that cannot be used, by real sockets that answer as such a one does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.importer.failure import ImportFailed
from services.importer.sources.hdfs import check_namenodes

# As a NameNode of Hadoop 3.4.2 answers a SASL negotiation, but for what it offers.
_OFFER = b"\x00\x00\x00\x40\x0e\x08\xdf\xff\xff\xff\x0f\x10\x00\x18\t:\x00@\x01\x9d\x01\x10\x01"
SECURE = _OFFER + b'"\x10\n\x05TOKEN\x12\nDIGEST-MD5"\x12\n\x08KERBEROS\x12\x06GSSAPI'
OPEN = _OFFER + b'"\x10\n\x05TOKEN\x12\nDIGEST-MD5"\x0a\n\x06SIMPLE\x12\x00'


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that answers the first bytes of each connection with these."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def configured(folder: Path, **properties: str) -> dict[str, str]:
    text = "".join(
        f"<property><name>{name.replace('_', '.')}</name><value>{value}</value></property>"
        for name, value in properties.items()
    )
    (folder / "core-site.xml").write_text(f"<configuration>{text}</configuration>")
    return {"HADOOP_CONF_DIR": str(folder), "KRB5CCNAME": f"FILE:{folder / 'ticket'}"}


def said(host: str, environ: dict[str, str]) -> str:
    with pytest.raises(ImportFailed) as failed:
        check_namenodes(host, environ)
    assert failed.value.failure.reason == "source_unavailable"
    return failed.value.failure.message


def test_a_namenode_that_wants_kerberos_is_said_to_before_anything_is_tried(tmp_path: Path) -> None:
    with answering(SECURE) as port:
        unconfigured = said(f"127.0.0.1:{port}", {})
        without_ticket = said(f"127.0.0.1:{port}", configured(tmp_path, hadoop_security_authentication="kerberos"))

    assert "wants Kerberos credentials, and HADOOP_CONF_DIR does not configure it" in unconfigured
    assert "neither a ticket nor a keytab" in without_ticket
    assert "KRB5CCNAME" in without_ticket


def test_a_namenode_that_lets_everybody_in_is_used() -> None:
    with answering(OPEN) as port:
        check_namenodes(f"127.0.0.1:{port}", {})


def test_a_configuration_that_is_cut_off_is_named(tmp_path: Path) -> None:
    (tmp_path / "core-site.xml").write_text("<configuration><property>")
    with answering(OPEN) as port:
        told = said(f"127.0.0.1:{port}", {"HADOOP_CONF_DIR": str(tmp_path)})
    assert "Hadoop's configuration is broken" in told
    assert f"{tmp_path}/core-site.xml: no element found: line 1" in told


@pytest.mark.parametrize(
    ("answer", "spoken"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP (HTTP/1.1 400 Bad Request)"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "speaks HTTP (HTTP/1.1 401 Unauthorized)"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "speaks TLS"),
        (b"", "closes the connection without a word"),
    ],
)
def test_another_server_is_said_to_be_no_namenode_and_what_it_speaks(answer: bytes, spoken: str) -> None:
    with answering(answer) as port:
        message = said(f"127.0.0.1:{port}", {})

    assert f"127.0.0.1:{port} {spoken}: it is not the RPC port of a NameNode; that is usually 8020" in message


@pytest.mark.parametrize(
    ("host", "why"), [("127.0.0.1:1", "Connection refused"), ("nowhere.invalid", "no host name that resolves")]
)
def test_an_address_that_leads_nowhere_is_named(host: str, why: str) -> None:
    message = said(host, {})

    assert why in message
    assert host in message


def test_the_namenodes_of_a_nameservice_come_from_hadoops_own_configuration(tmp_path: Path) -> None:
    def lake(port: int) -> dict[str, str]:
        members = {"dfs.ha.namenodes.lake": "one, two", "dfs.namenode.rpc-address.lake.one": "127.0.0.1:1"}
        return configured(tmp_path, **members, **{"dfs.namenode.rpc-address.lake.two": f"127.0.0.1:{port}"})

    with answering(OPEN) as port:
        check_namenodes("lake", lake(port))

    message = said("lake", lake(2))
    assert "127.0.0.1:1 cannot be reached" in message
    assert "127.0.0.1:2 cannot be reached" in message


def test_a_namenode_that_takes_the_connection_and_is_silent_is_told_from_one_that_refuses_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "does not answer; check the address" in said(
            f"127.0.0.1:{server.getsockname()[1]}", configured(tmp_path)
        )
