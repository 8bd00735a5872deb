"""TLS and mutual TLS: certificates are files, and files are replaced while the process runs.

Kubernetes and cert-manager swap a mounted Secret as a whole (a symbolic link moves); others write over the files. Both
are noticed when the next connection is made. A pair that is broken or half written is not taken: the one before serves
on.
"""

from __future__ import annotations

import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge

from banditmesh.runtime.certificate_dates import first_to_expire
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.logging import get_logger

log = get_logger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class ServerTls:
    """PEM files of a server.

    Attributes:
        cert: Its certificate, and those between it and the root.
        key: Its private key.
        client_ca: Roots of the clients' certificates; clients must show one then. None: they need not, and cannot.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(path for path in (self.cert, self.key, self.client_ca) if path is not None)


@dataclass(frozen=True)
class ClientTls:
    """PEM files of a client.

    Attributes:
        ca: Roots that the server's certificate must come from; None: those of the machine.
        cert: The client's own certificate, for servers that want one (mutual TLS).
        key: Its private key.
        server_name: What the server's certificate must name, where that is not the host of the target.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("a client certificate needs its key, and a key its certificate")

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises ConfigurationError."""
        ca, cert, key = (None if path is None else _read(path) for path in (self.ca, self.cert, self.key))
        if self.cert is not None and self.key is not None:
            _check_pair(self.cert, self.key)
        return grpc.ssl_channel_credentials(ca, key, cert)

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """Channel options."""
        return () if self.server_name is None else (("grpc.ssl_target_name_override", self.server_name),)


class ServerCertificates:
    """The certificates that a server shows, read again when their files change."""

    def __init__(self, tls: ServerTls, registry: CollectorRegistry) -> None:
        """Reads the files. Raises ConfigurationError."""
        self._tls = tls
        self._lock = threading.Lock()
        self._reloads = Counter(
            "banditmesh_tls_reloads_total",
            "Times that the certificate's files had changed; refused: they do not fit together, the old ones serve on",
            ["result"],
            registry=registry,
        )
        self._issued = Gauge(
            "banditmesh_tls_certificate_issued_timestamp_seconds",
            "When the certificates that are served and checked with were issued",
            ["file"],
            registry=registry,
        )
        self._expires = Gauge(
            "banditmesh_tls_certificate_expires_timestamp_seconds",
            "When they expire, the first of each file; worry when little is left: nobody renews them",
            ["file"],
            registry=registry,
        )
        self._stamp = stamp(tls.files)
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """For ``add_secure_port``."""
        return grpc.dynamic_ssl_server_credentials(
            self._first, self._newest, require_client_authentication=self._tls.client_ca is not None
        )

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by grpc before each handshake, in a thread of its own; None: nothing has changed."""
        with self._lock:
            try:
                now = stamp(self._tls.files)
                if now == self._stamp:
                    return None
                self._stamp = now
                fresh = self._read()
            except ConfigurationError as error:
                self._reloads.labels("refused").inc()
                log.error("new certificate refused; the old one serves on", error=str(error))
                return None
            self._reloads.labels("taken").inc()
            log.info("new certificate", cert=str(self._tls.cert))
            return fresh

    def _read(self) -> grpc.ServerCertificateConfiguration:
        tls = self._tls
        pair = (_read(tls.key), _read(tls.cert))
        ca = None if tls.client_ca is None else _read_roots(tls.client_ca)
        _check_pair(tls.cert, tls.key)
        self._date("certificate", tls.cert, pair[1])
        if ca is not None and tls.client_ca is not None:
            self._date("client_ca", tls.client_ca, ca)
        return grpc.ssl_server_certificate_configuration([pair], ca)

    def _date(self, file: str, path: Path, content: bytes) -> None:
        try:
            validity = first_to_expire(content)
        except ValueError as error:  # grpc takes more kinds of file than we read; it serves, its end is not known
            log.warning("cannot tell when a certificate expires", file=str(path), error=str(error))
            return
        self._issued.labels(file).set(validity.since_s)
        self._expires.labels(file).set(validity.until_s)


def stamp(files: tuple[Path, ...]) -> Stamp:
    """What changes when one of the files is replaced or written, symbolic links followed. Raises ConfigurationError
    when one is missing."""
    try:
        found = [os.stat(path) for path in files]
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error


def _read_roots(path: Path) -> bytes:
    content = _read(path)
    try:
        ssl.create_default_context(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"{path}: holds no PEM certificates: {error}") from error
    return content


def _check_pair(cert: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise ConfigurationError(f"{cert} and {key} are no PEM certificate and its private key: {reason}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; write it without a password")
