"""Vectors out of words: hashed TF–IDF, projected to few dimensions.

Words go to buckets by a hash (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning", eq. 1, with
the sign that keeps inner products unbiased), weigh (1 + ln tf) · idf (Salton & Buckley 1988), and a matrix makes few
dimensions of them: the leading singular vectors of the contents' words (latent semantic analysis, Deerwester et al.
1990), or what comes nearest to vectors of contents that are opened by the same users (`banditmesh embed fit --clicks`).
A content that nobody has opened yet has a vector too: its words are enough.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.policy import tensor

Floats = NDArray[np.float32]
_WORD: Final = re.compile(r"\w+", re.UNICODE)
_SPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Scripts that are written without spaces: two letters in a row are a word."""


@dataclass(frozen=True, eq=False)
class TextModel:
    """See the module.

    Attributes:
        idf: float32[n_buckets], of each bucket: ln((1 + contents) / (1 + contents with it)) + 1.
        projection: float32[n_buckets, dimensions].
    """

    idf: Floats
    projection: Floats

    @property
    def dimensions(self) -> int:
        """Of the vectors."""
        return int(self.projection.shape[1])

    def vectors(self, texts: Sequence[str]) -> Floats:
        """``float32[n, dimensions]``, of length 1; all 0 for a text without a word that is known."""
        rows = weighted(counted(texts, len(self.idf)), self.idf)
        out = np.zeros((len(texts), self.dimensions), np.float32)
        for at in range(len(texts)):
            span = slice(int(rows.offsets[at]), int(rows.offsets[at + 1]))
            out[at] = rows.values[span] @ self.projection[rows.ids[span]]
        lengths = np.linalg.norm(out, axis=1, keepdims=True)
        out /= np.where(lengths > 1e-9, lengths, 1)
        return out

    def tensors(self) -> dict[str, NDArray[Any]]:
        """For a snapshot."""
        return {"idf": self.idf, "projection": self.projection}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Raises InvalidTensors."""
        idf = tensor(tensors, "idf", np.float32, (None,))
        projection = tensor(tensors, "projection", np.float32, (len(idf), None))
        if not len(idf) or len(idf) & (len(idf) - 1):
            raise InvalidTensors("is no power of two", field="idf")
        return cls(idf, projection)


def text_of(title: str, body: str, attributes: Mapping[str, Iterable[str]]) -> str:
    """The text that a content's vector is made of: title, body, and each value of its attributes as one word."""
    values = (f"{name}_{value}".replace(" ", "_") for name, listed in attributes.items() for value in listed)
    return "\n".join([title, body, *values])


def words(text: str) -> list[str]:
    """The words of a text: runs of letters and digits in lower case; of scripts without spaces, pairs of letters."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if len(word) > 2 and _SPACED.search(word):
            found += [word[at : at + 2] for at in range(len(word) - 1)]
        else:
            found.append(word)
    return found


def counted(texts: Sequence[str], buckets: int) -> SparseRows:
    """The signed count of each bucket in each text, as 1 + ln of it; ``buckets``: a power of two."""
    ids: list[int] = []
    values: list[float] = []
    offsets = np.zeros(len(texts) + 1, np.int64)
    for at, text in enumerate(texts):
        sums: dict[int, float] = {}
        for word, count in Counter(words(text)).items():
            bucket, sign = _bucket(word)
            bucket &= buckets - 1
            sums[bucket] = sums.get(bucket, 0.0) + sign * (1 + float(np.log(count)))
        ids += sums.keys()
        values += sums.values()
        offsets[at + 1] = len(ids)
    return SparseRows(offsets, np.array(ids, np.uint32), np.array(values, np.float32))


def weighted(rows: SparseRows, idf: Floats) -> SparseRows:
    """The rows with each bucket's weight, of length 1."""
    values = rows.values * idf[rows.ids]
    lengths = np.sqrt(np.bincount(_owners(rows), values.astype(np.float64) ** 2, len(rows.offsets) - 1))
    scale = 1 / np.where(lengths > 0, lengths, 1)
    return SparseRows(rows.offsets, rows.ids, (values * scale[_owners(rows)]).astype(np.float32))


def idf_of(rows: SparseRows, buckets: int) -> Floats:
    """``float32[n_buckets]``: see :attr:`TextModel.idf`."""
    seen = np.bincount(rows.ids, minlength=buckets)
    idf: Floats = (np.log((len(rows.offsets)) / (1 + seen)) + 1).astype(np.float32)
    return idf


def _owners(rows: SparseRows) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(rows.offsets) - 1), np.diff(rows.offsets))


@lru_cache(maxsize=1 << 17)
def _bucket(word: str) -> tuple[int, float]:
    """The word's hash, and its sign."""
    data = word.encode()
    return zlib.crc32(data), 1.0 if zlib.adler32(data[::-1]) & 1 else -1.0
