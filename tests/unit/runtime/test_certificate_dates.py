"""Validity, against what wrote the certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from banditmesh.local.authority import Authority
from banditmesh.runtime.certificate_dates import Validity, first_to_expire


@pytest.mark.parametrize("days", [-1, 30, 40 * 365], ids=["past", "soon", "after 2049"])
def test_the_dates_are_those_in_the_certificate(days: int, tmp_path: Path) -> None:
    cert, _ = Authority(tmp_path).issue("server", names=("a.example",), until=datetime.now(UTC) + timedelta(days=days))
    expected = x509.load_pem_x509_certificate(cert.read_bytes())
    found = first_to_expire(cert.read_bytes())
    assert found == Validity(expected.not_valid_before_utc.timestamp(), expected.not_valid_after_utc.timestamp())


def test_of_a_chain_the_first_to_end_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, _ = authority.issue("server", until=datetime.now(UTC) + timedelta(days=3))
    alone = first_to_expire(cert.read_bytes())
    assert first_to_expire(authority.ca.read_bytes() + b"\nwords between\n" + cert.read_bytes()) == alone


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_a_value_error(pem: bytes) -> None:
    with pytest.raises(ValueError, match="certificate"):
        first_to_expire(pem)
