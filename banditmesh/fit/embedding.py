"""A text model out of contents' words, and, where there is a log, out of who opened what.

Without a log the projection is the truncated singular value decomposition of the TF–IDF matrix (latent semantic
analysis). With one, contents that the same users open come to lie together: their positive pointwise mutual
information, shifted by ln k, is factorised, which is what word2vec's skip-gram with k negative samples does (Levy &
Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization", eq. 10 and 11), and a ridge regression from
words to these vectors lets a content that nobody has opened have one too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import SparseRows
from banditmesh.fit.truncated_svd import Sparse, decomposed, ridge
from banditmesh.retrieval.text import TextModel, counted, idf_of, weighted
from banditmesh.runtime.errors import InvalidArgument

NEGATIVES: Final = 5
MOST_OF_USER: Final = 200
_RIDGE: Final = 1.0


@dataclass(frozen=True)
class Fitted:
    """A text model, and how it came about.

    Attributes:
        explained: Share of the matrix's squared entries that the dimensions hold.
        opened: Contents that the log has clicks of; 0 without a log.
    """

    model: TextModel
    contents: int
    explained: float
    opened: int = 0


def fit(
    texts: Mapping[str, str],
    dimensions: int,
    *,
    opened: Iterable[Sequence[str]] | None = None,
    buckets: int = 1 << 15,
    seed: int = 0,
) -> Fitted:
    """Fit a text model.

    Args:
        texts: The words of each content, by its id.
        dimensions: Of the vectors.
        opened: What each user opened, as ids; None: by the words alone.
        buckets: Of the hash, a power of two.
        seed: Of the randomised decomposition.

    Raises:
        InvalidArgument: There are not more contents (or contents with clicks) than dimensions.
    """
    rows = counted(list(texts.values()), buckets)
    idf = idf_of(rows, buckets)
    words = weighted(rows, idf)
    if opened is None:
        _enough(len(texts), dimensions, "contents")
        _, components, explained = decomposed(Sparse(words, buckets), dimensions, seed)
        return Fitted(TextModel(idf, np.ascontiguousarray(components, np.float32)), len(texts), explained)
    matrix, known = _together(list(texts), opened)
    _enough(len(known), dimensions, "contents with clicks of users who clicked several")
    places, _, explained = decomposed(matrix, dimensions, seed)
    lengths = np.linalg.norm(places, axis=1, keepdims=True)
    projection = ridge(Sparse(words.take(known), buckets), places / np.where(lengths > 0, lengths, 1), _RIDGE)
    return Fitted(TextModel(idf, np.ascontiguousarray(projection, np.float32)), len(texts), explained, len(known))


def _enough(n: int, dimensions: int, what: str) -> None:
    if n <= dimensions:
        raise InvalidArgument(
            f"{n} {what} cannot fill {dimensions} dimensions; there must be more", field="dimensions", value=dimensions
        )


def _together(ids: Sequence[str], opened: Iterable[Sequence[str]]) -> tuple[Sparse, NDArray[np.int64]]:
    """The shifted positive mutual information of contents that the same users opened, and which contents they are.

    A user of n contents weighs 1 / (n - 1), so that nobody counts with the square of what was opened.
    """
    number = {each: at for at, each in enumerate(ids)}
    codes: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    weights: list[NDArray[np.float64]] = [np.zeros(0)]
    for of_user in opened:
        mine = np.array([number[each] for each in dict.fromkeys(of_user) if each in number][-MOST_OF_USER:], np.int64)
        if len(mine) > 1:
            pairs = mine[:, None] * len(ids) + mine
            codes.append(pairs[~np.eye(len(mine), dtype=np.bool_)])
            weights.append(np.full(len(codes[-1]), 1 / (len(mine) - 1)))
    distinct, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    counts = np.bincount(inverse, np.concatenate(weights), len(distinct))
    known = np.unique(distinct // len(ids))
    row, column = (np.searchsorted(known, each) for each in np.divmod(distinct, len(ids)))
    own = np.bincount(row, counts, len(known))
    mutual = np.log(counts * own.sum() / (own[row] * own[column])) - np.log(NEGATIVES)
    # With few contents the shift leaves too little; without it the matrix is the plain positive one.
    if (mutual > 0).sum() < 4 * len(known):
        mutual += np.log(NEGATIVES)
    offsets = np.zeros(len(known) + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=len(known)), out=offsets[1:])
    rows = SparseRows(offsets, column.astype(np.uint32), np.maximum(mutual, 0).astype(np.float32))
    return Sparse(rows, len(known)), known
