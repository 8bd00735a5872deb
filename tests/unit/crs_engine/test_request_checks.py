"""What is wrong with a request is found before anything is done for it, and for little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.runtime.errors import NotFound
from services.crs_engine.validation import checked


class NeverSearched(frozenset[str]):
    """Names that may be looked up, and not gone through."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("gone through")


def test_no_hint_is_searched_for_where_none_is_wanted() -> None:
    request = pb.SelectContentRequest(placement="haed", user_id="ann")
    with pytest.raises(NotFound, match="no such placement"):
        checked(request, NeverSearched({"head"}), at="requests[3].", hinted=False)
    with pytest.raises(AssertionError, match="gone through"):
        checked(request, NeverSearched({"head"}), at="requests[3].")
