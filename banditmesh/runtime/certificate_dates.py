"""From when to when certificates are valid, read out of PEM files with nothing but the standard library.

A certificate is nested DER: ``SEQUENCE { SEQUENCE { [0] version, serial, algorithm, issuer, validity, … } … }``, and
validity is two times (RFC 5280, section 4.1).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_EXPLICIT_VERSION, _UTC_TIME = 0xA0, 0x17


class Validity(NamedTuple):
    """Seconds since 1970."""

    since_s: float
    until_s: float


def first_to_expire(pem: bytes) -> Validity:
    """Of all certificates in a file, the one that ends first. Raises ValueError when there is none, or it is broken."""
    blocks = _BLOCK.findall(pem.decode("ascii", errors="replace"))
    if not blocks:
        raise ValueError("holds no certificate")
    try:
        return min((_validity(ssl.PEM_cert_to_DER_cert(block)) for block in blocks), key=lambda each: each.until_s)
    except (IndexError, ValueError) as error:
        raise ValueError("holds a broken certificate") from error


def _validity(der: bytes) -> Validity:
    ((_, whole),) = _items(der)
    (_, signed), *_ = _items(whole)
    fields = list(_items(signed))
    if fields[0][0] == _EXPLICIT_VERSION:
        del fields[0]
    since, until = (_seconds(tag, text) for tag, text in _items(fields[3][1]))
    return Validity(since, until)


def _items(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of what stands side by side. Raises IndexError when it is cut off."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise IndexError(at)
        yield tag, der[at : at + length]
        at += length


def _seconds(tag: int, text: bytes) -> float:
    """``YYMMDDhhmmssZ`` (1950 to 2049), later ``YYYYMMDDhhmmssZ``."""
    written = text.decode("ascii")
    if tag == _UTC_TIME:
        written = ("19" if written[:2] >= "50" else "20") + written
    return datetime.strptime(written, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
