"""Taste: the row of a user is the least-squares solution, and the blend goes over to it as feedback comes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from banditmesh.bandits import hashing
from banditmesh.bandits.als import Als, AlsParams, confidences, solved
from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.blend import Blend, BlendParams, Segments
from banditmesh.bandits.errors import InvalidParams, InvalidTensors
from banditmesh.bandits.feedback import KINDS, Feedback
from banditmesh.bandits.registry import build, stands_on

PARAMS = AlsParams(factors=4, regularization=0.5)
TARGET, CLICK, DWELL, RATING, DISLIKE = range(len(KINDS))


def fitted(rng: np.random.Generator, n: int = 30, params: AlsParams = PARAMS) -> Als:
    keys = np.arange(1, n + 1, dtype=np.uint64) * 7
    return Als.fitted(params, keys, np.zeros(n, np.uint64), rng.normal(size=(n, params.factors)).astype(np.float32))


def feedback(*users: list[tuple[int, int, float]]) -> Feedback:
    """Of each user: (content, kind, amount)."""
    flat = [(at, *each) for at, own in enumerate(users) for each in own]
    owners, contents, kinds, amounts = (np.array(column) for column in zip(*flat, strict=True))
    counts = np.array([len(own) for own in users])
    return Feedback.of(owners, contents.astype(np.uint64), kinds, amounts.astype(np.float32), counts)


def row_by_hand(als: Als, liked: dict[int, float]) -> np.ndarray:
    """Equation 4 as it stands, with matrices as large as the catalog."""
    factors = als.factors.astype(float)
    confidence, preference = np.ones(len(factors)), np.zeros(len(factors))
    for content, value in liked.items():
        at = int(als.rows(np.array([content], np.uint64))[0])
        confidence[at], preference[at] = abs(value), float(value > 0)
    left = factors.T @ np.diag(confidence) @ factors + als.params.regularization * np.eye(als.params.factors)
    return np.linalg.solve(left, factors.T @ (confidence * preference))


def test_fold_in_is_the_least_squares_row_of_the_paper() -> None:
    als = fitted(np.random.default_rng(1))
    did = feedback(
        [(7, CLICK, 1.0), (14, TARGET, 1.0), (7, TARGET, 1.0)],
        [(21, DISLIKE, 1.0), (28, DWELL, 120.0), (35, RATING, 4.5), (42, RATING, 1.0)],
        [(999, CLICK, 1.0)],
    )
    params = PARAMS.model_copy(update={"dwell": 0.5})
    als = Als.fitted(params, als.keys, als.services, als.factors)
    users = als.users(did)
    np.testing.assert_allclose(users[0], row_by_hand(als, {7: 4.0, 14: 3.0}), atol=1e-9)
    np.testing.assert_allclose(users[1], row_by_hand(als, {21: -1.0, 28: 1.0, 35: 2.0, 42: -1.5}), atol=1e-9)
    assert not users[2].any(), "of contents that the fit did not know nothing follows"


def test_a_row_is_the_one_that_a_refit_by_implicit_gives() -> None:
    """The package's own equations for a user, against the same factors of contents."""
    pytest.importorskip("implicit")
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(2)
    als = fitted(rng, 40, AlsParams(factors=8, regularization=2.0))
    rows = rng.integers(1, 41, (12, 6))
    values = rng.choice([1.0, 3.0, 4.0], rows.shape)
    liked = np.zeros((12, 40))
    for user in range(12):
        liked[user, rows[user] - 1] = 0
        for content, value in zip(rows[user], values[user], strict=True):
            liked[user, content - 1] = value if value != 4.0 else -1.0
    with threadpool_limits(1, "blas"):
        theirs = AlternatingLeastSquares(factors=8, regularization=2.0, use_cg=False, num_threads=1)
        theirs.item_factors = als.factors
        expected = theirs.recalculate_user(np.arange(12), csr_matrix(liked.astype(np.float32)))
    kinds = {1.0: CLICK, 3.0: TARGET, -1.0: DISLIKE}
    did = feedback(
        *[[((at + 1) * 7, kinds[value], 1.0) for at, value in enumerate(own) if value] for own in liked.tolist()]
    )
    np.testing.assert_allclose(als.users(did), expected, atol=1e-5)


def test_many_systems_are_solved_as_few_are() -> None:
    rng = np.random.default_rng(3)
    roots = rng.normal(size=(9, 6, 6))
    left, right = roots @ np.swapaxes(roots, 1, 2) + np.eye(6), rng.normal(size=(9, 6))
    np.testing.assert_allclose(solved(left, right), np.linalg.solve(left, right[:, :, None])[:, :, 0], atol=1e-9)
    np.testing.assert_allclose(solved(left[:1], right[:1]), solved(left, right)[:1], atol=1e-9)


def test_confidences_of_one_user_with_one_content_add_up_and_nothing_said_is_nothing() -> None:
    did = feedback([(1, CLICK, 1.0), (1, DISLIKE, 1.0), (2, CLICK, 1.0), (2, CLICK, 1.0)])
    found = confidences(PARAMS, did.owners, did.contents, did.kinds, did.amounts)
    assert (found.contents.tolist(), found.values.tolist()) == ([2], [2.0])


def candidates(contents: list[int], did: Feedback | None, context: list[tuple[int, float]] | None = None) -> Candidates:
    keys = np.array(contents, np.uint64)
    rows = SparseRows.from_lists([context or []])
    return Candidates(np.array([0, len(keys)]), keys, keys, keys, rows, SparseRows.empty(len(keys)), did)


def shown(contents: list[int], rewards: list[float], feature: int = 0) -> Examples:
    keys = np.array(contents, np.uint64)
    rows = SparseRows.from_lists([[(feature, 1.0)] if feature else []] * len(keys))
    return Examples.checked(keys, keys, keys, rows, rewards, np.full(len(keys), 0.5), np.zeros(len(keys)), keys > 0)


def test_the_blend_begins_with_popularity_and_ends_with_taste() -> None:
    """With n = 0 the order is that of the counters; far beyond k that of the taste, whatever its unit."""
    als = fitted(np.random.default_rng(4))
    blend = Blend(BlendParams.model_validate({"personal": {"als": PARAMS.model_dump(mode="json")}, "k": 10.0}))
    blend = blend.standing_on(als)
    contents = [7, 14, 21, 28]
    blend.learn(shown(contents * 5, [0.9, 0.1, 0.5, 0.3] * 5))
    one = feedback([(70, CLICK, 1.0), (77, TARGET, 1.0)])
    popular = blend.score(candidates(contents, None)).mean
    taste = als.score(candidates(contents, one)).mean
    assert np.argsort(popular).tolist() == [1, 3, 2, 0]
    for n, expected in ((0, popular), (10**9, taste)):
        found = blend.score(candidates(contents, replace(one, counts=np.array([n])))).mean
        assert np.argsort(found).tolist() == np.argsort(expected).tolist()
    half = blend.score(candidates(contents, replace(one, counts=np.array([10]))))
    whole = blend.score(candidates(contents, replace(one, counts=np.array([10**9]))))
    np.testing.assert_allclose(half.mean, (popular + whole.mean) / 2, atol=1e-6)
    assert whole.mean.mean() == pytest.approx(popular.mean(), abs=1e-6)
    assert whole.mean.std() == pytest.approx(popular.std(), rel=1e-4)
    assert (whole.deviation <= half.deviation).all()


def test_a_content_that_the_fit_does_not_know_keeps_its_popular_score() -> None:
    als = fitted(np.random.default_rng(5))
    blend = Blend(BlendParams.model_validate({"personal": {"als": PARAMS.model_dump(mode="json")}})).standing_on(als)
    contents = [7, 14, 123_456]
    blend.learn(shown(contents, [0.2, 0.4, 0.8]))
    found = blend.score(candidates(contents, replace(feedback([(70, CLICK, 1.0)]), counts=np.array([1000]))))
    assert found.mean[2] == blend.score(candidates(contents, None)).mean[2]


def test_popular_may_be_another_thing_in_another_country_and_hour() -> None:
    """In Japan content 1 earns, elsewhere content 2; a cell of which nothing is known is the content's own mean."""
    blend = Blend(BlendParams.model_validate({"popular": {"by": ["country"], "prior_weight": 1.0}}))
    japan, korea, mars = (hashing.categorical_id("country", each) for each in ("JP", "kr", "MARS"))
    blend.learn(shown([1, 2] * 20, [1.0, 0.0] * 20, japan))
    blend.learn(shown([1, 2] * 20, [0.0, 1.0] * 20, korea))
    means = {
        name: blend.score(candidates([1, 2], None, [(each, 1.0)])).mean.tolist()
        for name, each in (("japan", japan), ("korea", korea), ("mars", mars))
    }
    assert means["japan"][0] > 0.9 > 0.1 > means["japan"][1]
    assert means["korea"][1] > 0.9 > 0.1 > means["korea"][0]
    assert means["mars"] == pytest.approx([0.5, 0.5])


def test_hours_of_a_band_are_one_cell() -> None:
    segments = Segments(("hour", "weekday"), 6)
    hours = [[(hashing.categorical_id("hour", str(hour)), 1.0)] for hour in (0, 5, 6, 23)]
    cells = segments.of(SparseRows.from_lists([*hours, [], [(hashing.categorical_id("weekday", "3"), 1.0)]])).tolist()
    assert cells[0] == cells[1] != cells[2]
    assert cells[4] == 0
    assert len(set(cells)) == 5


def test_the_blend_names_the_model_that_it_stands_on() -> None:
    assert stands_on("blend", {"personal": {"als": {"factors": 8}}})["als"]["factors"] == 8
    assert stands_on("fm", {}) == {}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"popular": {"hours": 5}}, "5 does not divide the day"),
        ({"popular": {"by": ["age"]}}, "by"),
        ({"personal": {"fm": {}}}, "personal"),
        ({"k": 0}, "greater than 0"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        build("blend", params)


def test_a_fit_whose_gram_is_not_that_of_its_factors_is_refused() -> None:
    rng = np.random.default_rng(1)
    als = Als.fitted(AlsParams(factors=4), np.arange(9, dtype=np.uint64), np.ones(9, np.uint64), rng.random((9, 4)))
    tensors = als.tensors()
    assert Als.from_tensors(als.params, tensors).tensors()["gram"].tolist() == tensors["gram"].tolist()
    with pytest.raises(InvalidTensors, match="gram: is not that of the factors"):
        Als.from_tensors(als.params, {**tensors, "gram": -tensors["gram"]})
