"""Tensors as safetensors bytes, and back with nothing taken on trust.

Layout (safetensors): u64 little-endian length n of the header; n bytes of JSON, name → {dtype, shape, data_offsets};
the data. Written by the library, whose order (by type, then name) depends on nothing else, so equal tensors give equal
bytes. Read here, since the library copies and we want views of the file's pages, which all processes of a host share.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

_TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
}
_CHUNK = 1 << 20
"""Elements that are checked at once, so that checking a mapped model needs no second copy of it."""


class BadSnapshot(Exception):
    """A snapshot that must not be used. ``reason`` is a short word to count by, ``message`` says what is wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class TensorSpec:
    """Type (numpy's name) and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the data. Raises BadSnapshot ("shape") for a type that no snapshot has, or a negative length."""
        if self.dtype not in _TYPES.values() or any(length < 0 for length in self.shape):
            raise BadSnapshot("shape", f"{self.dtype}{list(self.shape)} is no tensor")
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


def encode(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of tensors. Raises BadSnapshot ("not_finite") when a float is NaN or infinite."""
    for name, array in tensors.items():
        _check_finite(name, array)
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in tensors.items()})


def verified(body: bytes | mmap.mmap, sha256: str, specs: Mapping[str, TensorSpec]) -> dict[str, NDArray[Any]]:
    """Read-only views of the tensors in ``body``. Raises BadSnapshot: sha256, header, shape, not_finite."""
    digest = hashlib.sha256(body).hexdigest()
    if digest != sha256:
        raise BadSnapshot("sha256", f"is {digest}, the manifest says {sha256}")
    tensors = _views(body)
    found = {name: TensorSpec(str(array.dtype), array.shape) for name, array in tensors.items()}
    for name in sorted(found.keys() | specs.keys()):
        if found.get(name) != specs.get(name):
            raise BadSnapshot("shape", f"tensor {name!r} is {found.get(name)}, the manifest says {specs.get(name)}")
    for name, array in tensors.items():
        _check_finite(name, array)
    return tensors


def mapped(path: Path, sha256: str, specs: Mapping[str, TensorSpec]) -> dict[str, NDArray[Any]]:
    """:func:`verified` of a file, memory-mapped. A wrong file is deleted, so that the next try starts afresh."""
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise BadSnapshot("header", f"{path.name} is empty")
            return verified(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), sha256, specs)
    except BadSnapshot:
        path.unlink(missing_ok=True)
        raise


def _views(body: bytes | mmap.mmap) -> dict[str, NDArray[Any]]:
    if len(body) < 8 or (length := int.from_bytes(body[:8], "little")) > len(body) - 8:
        raise BadSnapshot("header", f"{len(body)} bytes cannot hold the header")
    start = 8 + length
    try:
        header = json.loads(body[8:start])
        header.pop("__metadata__", None)
        spans = sorted((*map(int, entry["data_offsets"]), name) for name, entry in header.items())
        specs = {
            name: TensorSpec(_TYPES[each["dtype"]], tuple(map(int, each["shape"]))) for name, each in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadSnapshot("header", f"cannot be read: {error!r}") from error
    end = 0
    for low, high, name in spans:
        if low != end or high - low != specs[name].nbytes:
            size = specs[name].nbytes
            raise BadSnapshot("header", f"tensor {name!r} of {size} bytes lies at {low}:{high}, where {end} is next")
        end = high
    if start + end != len(body):
        raise BadSnapshot("header", f"the tensors end at {start + end}, the file at {len(body)}")
    return {name: _view(body, specs[name], start + low) for low, _, name in spans}


def _view(body: bytes | mmap.mmap, spec: TensorSpec, start: int) -> NDArray[Any]:
    count = math.prod(spec.shape)
    return np.frombuffer(body, spec.dtype, count, start if count else 0).reshape(spec.shape)


def _check_finite(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind != "f":
        return
    flat = array.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        if not np.isfinite(flat[start : start + _CHUNK]).all():
            raise BadSnapshot("not_finite", f"tensor {name!r} holds NaN or an infinite number")
