"""Tensors as bytes: the same tensors are the same bytes, and nothing that was read is taken on trust."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from banditmesh.runtime import tensorfile
from banditmesh.runtime.tensorfile import BadSnapshot, TensorSpec

Tensors = dict[str, NDArray[Any]]

TENSORS: Tensors = {
    "moment": np.arange(6, dtype=np.float64).reshape(2, 3),
    "arms": np.array([1, 2**64 - 1], np.uint64),
    "readout": np.zeros((0, 4), np.float32),
    "known": np.array([True, False]),
}


def specs(tensors: Tensors) -> dict[str, TensorSpec]:
    return {name: TensorSpec(str(array.dtype), array.shape) for name, array in tensors.items()}


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def read(body: bytes, tensors: Tensors = TENSORS) -> Tensors:
    return tensorfile.verified(body, sha(body), specs(tensors))


def reason_of(body: bytes, tensors: Tensors = TENSORS) -> str:
    with pytest.raises(BadSnapshot) as caught:
        read(body, tensors)
    return caught.value.reason


def with_header(change: Callable[[dict[str, Any]], None], body: bytes) -> bytes:
    """The same data with a header that lies."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body[8 + length :]


arrays = npst.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint64, np.uint8, np.bool_]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements={"allow_nan": False, "allow_infinity": False},
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), arrays, max_size=5))
def test_tensors_come_back_as_they_were(tensors: Tensors) -> None:
    found = read(tensorfile.encode(tensors), tensors)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_equal_tensors_are_equal_bytes_in_whatever_order_they_are_given() -> None:
    backwards = dict(reversed(TENSORS.items()))
    assert tensorfile.encode(backwards) == tensorfile.encode(TENSORS)


def test_an_array_in_another_memory_layout_is_the_same_bytes() -> None:
    fortran = {**TENSORS, "moment": np.asfortranarray(TENSORS["moment"])}
    assert tensorfile.encode(fortran) == tensorfile.encode(TENSORS)


def test_what_was_read_cannot_be_written_to() -> None:
    assert not any(array.flags.writeable for array in read(tensorfile.encode(TENSORS)).values())


def test_a_file_is_mapped_and_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    body = tensorfile.encode(TENSORS)
    path.write_bytes(body)
    found = tensorfile.mapped(path, sha(body), specs(TENSORS))
    base = found["moment"]
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert "mmap" in repr(getattr(base.base, "obj", base.base))


def test_a_changed_byte_is_noticed() -> None:
    body = tensorfile.encode(TENSORS)
    with pytest.raises(BadSnapshot) as caught:
        tensorfile.verified(body[:-1] + b"\x01", sha(body), specs(TENSORS))
    assert caught.value.reason == "sha256"


def test_a_broken_file_is_deleted_so_that_the_next_try_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for broken in (b"", b"nonsense"):
        path.write_bytes(broken)
        with pytest.raises(BadSnapshot):
            tensorfile.mapped(path, sha(b"something else"), {})
        assert not path.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1234567",
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xff",
        (2).to_bytes(8, "little") + b"{}" + b"left over",
    ],
)
def test_a_header_that_is_none_is_refused(body: bytes) -> None:
    assert reason_of(body, {}) == "header"


def test_tensors_that_overlap_leave_gaps_or_reach_beyond_the_file_are_refused() -> None:
    body = tensorfile.encode(TENSORS)

    def overlap(header: dict[str, Any]) -> None:
        header["arms"]["data_offsets"] = header["moment"]["data_offsets"][:1] * 2

    def beyond(header: dict[str, Any]) -> None:
        header["known"]["data_offsets"][1] += 100

    def of_another_size(header: dict[str, Any]) -> None:
        header["moment"]["shape"] = [2, 4]

    def negative(header: dict[str, Any]) -> None:
        header["moment"]["shape"] = [-2, -3]

    def of_no_type(header: dict[str, Any]) -> None:
        header["moment"]["dtype"] = "PICKLE"

    reasons = {
        lie.__name__: reason_of(with_header(lie, body)) for lie in (overlap, beyond, of_another_size, of_no_type)
    }
    assert set(reasons.values()) == {"header"}, reasons
    assert reason_of(with_header(negative, body)) in ("header", "shape")


@pytest.mark.parametrize(
    "promised",
    [
        {**TENSORS, "moment": np.zeros((3, 2))},
        {**TENSORS, "moment": np.zeros((2, 3), np.float32)},
        {**TENSORS, "extra": np.zeros(1)},
        {name: array for name, array in TENSORS.items() if name != "arms"},
    ],
)
def test_other_tensors_than_the_manifest_promises_are_refused(promised: Tensors) -> None:
    assert reason_of(tensorfile.encode(TENSORS), promised) == "shape"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_on_both_sides(number: float) -> None:
    tensors: Tensors = {"a": np.zeros(3), "b": np.array([0.0, number], np.float32)}
    with pytest.raises(BadSnapshot, match="'b'") as caught:
        tensorfile.encode(tensors)
    assert caught.value.reason == "not_finite"
    good = tensorfile.encode({"a": np.zeros(3), "b": np.array([0.0, 12.0], np.float32)})
    body = good.replace(np.float32(12.0).tobytes(), np.float32(number).tobytes())
    assert reason_of(body, tensors) == "not_finite"


def test_a_number_in_the_last_chunk_is_looked_at() -> None:
    large = np.zeros((1 << 20) + 1, np.float32)
    large[-1] = np.nan
    with pytest.raises(BadSnapshot, match="not_finite"):
        tensorfile.encode({"a": large})
