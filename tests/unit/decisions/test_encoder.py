from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from banditmesh.bandits import hashing
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.known import Known
from banditmesh.decisions.row import Decision, parse
from banditmesh.decisions.view import View

PLAIN = View()


def decision(candidates: list[dict[str, Any]], **rest: Any) -> Decision:
    return parse({"candidates": candidates, "shown": 0, "reward": 1.0, **rest}, 1, "log:1")


def features_of(row: Decision, at: int, view: View = PLAIN) -> set[tuple[int, float]]:
    """(id, value) of all that a policy sees of the candidate, the shared context included."""
    candidates = encode([row], view).candidates
    together = candidates.context.beside(candidates.features.take(np.array([at]))) if len(candidates) == 1 else None
    rows = together or candidates.context.take(np.array([0])).beside(candidates.features.take(np.array([at])))
    return set(zip(rows.ids.tolist(), rows.values.tolist(), strict=True))


def is_a(name: str, value: str) -> tuple[int, float]:
    return hashing.categorical_id(name, value), 1.0


def amounts(name: str, value: float) -> tuple[int, float]:
    return hashing.numeric_id(name), value


def test_strings_are_categories_and_numbers_are_numeric() -> None:
    row = decision([{"id": "a", "features": {"genre": "news", "x0": 0.5, "new": True, "tags": ["p", "q", "p"]}}])
    expected = {is_a("genre", "news"), amounts("x0", 0.5), is_a("new", "true"), is_a("tags", "p"), is_a("tags", "q")}
    assert features_of(row, 0) == expected


def test_a_name_is_looked_up_in_the_candidate_first_then_in_the_context() -> None:
    row = decision(
        [{"id": "a", "features": {"lang": "ja"}}, {"id": "b"}, {"id": "c", "features": {"lang": None}}],
        context={"lang": "en", "hour": 9},
    )
    assert features_of(row, 0) == {is_a("lang", "ja"), amounts("hour", 9.0)}
    assert features_of(row, 1) == features_of(row, 2) == {is_a("lang", "en"), amounts("hour", 9.0)}


def test_what_only_the_context_has_is_stored_once_a_decision() -> None:
    row = decision([{"id": str(n)} for n in range(100)], context={"age": "20s"})
    assert len(encode([row], PLAIN).candidates.features.ids) == 0


def test_arms_have_the_keys_that_the_engine_gives_them() -> None:
    row = decision([{"id": "a1", "service": "comics", "logic": "similar"}])
    candidates = encode([row], PLAIN).candidates
    assert candidates.contents.tolist() == [hashing.content_key("comics", "a1")]
    assert candidates.logics.tolist() == [hashing.logic_key("comics", "similar")]
    assert candidates.services.tolist() == [hashing.service_key("comics")]


def test_the_user_is_a_category_where_the_view_says_so() -> None:
    row = decision([{"id": "a"}], user="u1")
    assert features_of(row, 0) == set()
    assert features_of(row, 0, View(user=True)) == {is_a("user", "u1")}


def test_a_cross_multiplies_the_features_of_both_sides() -> None:
    row = decision([{"id": "a", "features": {"x": 2.0}}], context={"age": "20s", "y": 3.0})
    (crossed,) = features_of(row, 0, View(cross=(("x", "y"),))) - features_of(row, 0)
    ids = (np.array([hashing.numeric_id(name)], np.uint32) for name in ("x", "y"))
    assert crossed == (int(hashing.cross(*ids)[0]), 6.0)
    assert len(features_of(row, 0, View(cross=(("id", "context"),)))) == len(features_of(row, 0)) + 2


def test_crosses_with_the_id_tell_candidates_apart() -> None:
    row = decision([{"id": "a"}, {"id": "b"}], context={"x": 1.0})
    view = View(cross=(("id", "context"),))
    assert features_of(row, 0, view) != features_of(row, 1, view)


def test_a_cross_of_a_field_with_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="two different sides"):
        View(cross=(("x", "x"),))


def test_examples_are_what_was_shown_or_every_candidate_of_a_row_of_full_information() -> None:
    shown = decision([{"id": "a"}, {"id": "b"}], shown=1, reward=0.5, propensity=0.2)
    full = decision([{"id": "c", "reward": 0.0}, {"id": "d", "reward": 1.0}], shown=None, reward=None)
    examples = encode([shown, full], PLAIN).shown_examples()
    assert examples.contents.tolist() == [hashing.content_key("", name) for name in "bcd"]
    assert examples.rewards.tolist() == [0.5, 0.0, 1.0]
    assert examples.propensities.tolist() == pytest.approx([0.2, 1.0, 1.0])


def test_a_part_of_a_batch_is_the_batch_of_that_part() -> None:
    rows = [
        decision([{"id": str(n), "features": {"x": float(n)}} for n in range(size)], context={"y": float(size)})
        for size in (1, 3, 2, 4)
    ]
    part, alone = encode(rows, PLAIN).part(1, 3), encode(rows[1:3], PLAIN)
    assert part.shown.tolist() == alone.shown.tolist() == [0, 3]
    assert part.candidates.offsets.tolist() == alone.candidates.offsets.tolist()
    assert part.candidates.contents.tolist() == alone.candidates.contents.tolist()
    for left, right in (
        (part.candidates.context, alone.candidates.context),
        (part.candidates.features, alone.candidates.features),
    ):
        assert left.offsets.tolist() == right.offsets.tolist()
        assert left.ids.tolist() == right.ids.tolist()
        assert left.values.tolist() == right.values.tolist()


def test_columns_and_rows_that_differ_are_encoded_alike() -> None:
    alike = [{"id": str(n), "features": {"genre": f"g{n % 3}", "x": n / 7}} for n in range(6)]
    odd = {"id": "odd", "features": {"genre": True, "tags": ["p", "q"]}}
    columns, mixed = (
        encode([decision(each, user="u1")], View(user=True)).candidates for each in (alike, [*alike, odd])
    )
    kept = mixed.features.take(np.arange(6))
    assert columns.features.offsets.tolist() == kept.offsets.tolist()
    assert columns.features.ids.tolist() == kept.ids.tolist()
    assert columns.features.values.tolist() == kept.values.tolist()


def test_a_row_without_a_user_beside_rows_that_have_one_has_no_category_of_it() -> None:
    rows = [decision([{"id": "a"}], user=user) for user in ("u1", None, "u2")]
    context = encode(rows, View(user=True)).candidates.context
    assert context.offsets.tolist() == [0, 1, 1, 2]
    assert [(each, 1.0) for each in context.ids.tolist()] == [is_a("user", "u1"), is_a("user", "u2")]


def test_hashes_that_are_kept_stay_within_their_bound() -> None:
    asked: list[tuple[str, str]] = []

    def hashed(first: str, second: str) -> int:
        asked.append((first, second))
        return len(second)

    known = Known(hashed, kept=10)
    for _ in range(2):
        assert [known["a"]["b" * n] for n in range(5)] == [0, 1, 2, 3, 4]
    assert len(asked) == 5
    for n in range(100):
        assert known[f"field {n % 3}"]["b" * n] == n
        assert sum(1 + len(seconds) for seconds in known.values()) <= 10


def test_one_example_is_what_many_are_of_one() -> None:
    rows = [
        decision([{"id": "a", "features": {"x": 1.0}}, {"id": "b"}], context={"y": 2.0, "z": "w"}, t=3.0),
        decision([{"id": "c", "features": {"tags": ["p", "q"]}}, {"id": "d", "features": {"x": 4.0}}], t=5.0),
    ]
    batch = encode(rows, PLAIN)
    for row, flat in ((0, 0), (0, 1), (1, 2), (1, 3)):
        one = batch.example(row, flat, 0.25, 0.5)
        same = batch.examples(np.array([row]), np.array([flat]), np.array([0.25], np.float32), np.array([0.5]))
        for name in ("contents", "logics", "services", "rewards", "propensities", "times_s", "clicked"):
            left, right = getattr(one, name), getattr(same, name)
            assert (left.tolist(), left.dtype) == (right.tolist(), right.dtype)
        for name in ("offsets", "ids", "values"):
            left, right = getattr(one.features, name), getattr(same.features, name)
            assert (left.tolist(), left.dtype) == (right.tolist(), right.dtype)


def test_a_cross_that_no_number_holds_names_its_line() -> None:
    def row(line: int, x: float) -> Decision:
        given = {"candidates": [{"id": "a"}, {"id": "b", "features": {"y": 1e30}}], "context": {"x": x}, "shown": 0}
        return parse({**given, "reward": 1.0}, line, f"log:{line}")

    view = View(cross=(("x", "y"),))
    assert np.isfinite(encode([row(1, 1e8), row(2, -1e8)], view).candidates.features.values).all()
    with pytest.raises(BrokenRow, match=r"log:3: a cross of two features is too large .*1e\+60"):
        encode([row(1, 1.0), row(2, 2.0), row(3, 1e30), row(4, 1.0)], view)


def test_a_row_without_a_field_that_dense_names_is_named() -> None:
    view = View(needed=("x0", "x1"))
    whole = decision([{"id": "a", "features": {"x0": 1}}, {"id": "b", "features": {"x0": 2}}], context={"x1": 3})
    assert len(encode([whole], view)) == 1
    lacking = parse({"candidates": [{"id": "a"}], "context": {"x1": 3}, "reward": 1.0}, 7, "log:7")
    with pytest.raises(BrokenRow, match=r"log:7: lacks x0, which dense names.*candidates\[0\]"):
        encode([whole, lacking], view)


def test_a_content_may_be_a_candidate_once() -> None:
    with pytest.raises(BrokenRow, match=r"log:1: is a candidate already.*candidates\[2\]\.id.*got 'a'"):
        decision([{"id": "a"}, {"id": "b"}, {"id": "a"}])
    assert len(decision([{"id": "a", "service": "s"}, {"id": "a", "service": "t"}]).ids) == 2
