"""Logs whose lines have what nobody foresaw: that decision is skipped, and the log goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from banditmesh.runtime.errors import InvalidArgument
from tests.unit.convert.logs import CRITEO_BANNERS, DSJSON, MIND, OBD, OBD_ITEMS, VW_CB, converted, reasons

HUGE = "x" * 200_000
DIGITS = "9" * 5000
BIG_INT = "9" * 400
ONE = DSJSON.splitlines()[0]
CB = VW_CB.splitlines()[0]


@pytest.mark.parametrize(
    ("name", "file", "good", "bad", "why"),
    [
        ("vw-dsjson", "data.json", ONE, ONE.replace('"_label_cost":-1', f'"_label_cost":{BIG_INT}'), "not finite"),
        ("vw-dsjson", "data.json", ONE, ONE.replace('"_label_cost":-1', '"_label_cost":NaN'), "not finite"),
        ("vw-dsjson", "data.json", ONE, ONE.replace('"_label_cost":-1', '"_label_cost":true'), "no cost"),
        (
            "vw-dsjson",
            "data.json",
            ONE,
            ONE.replace('"_label_probability":0.8166667,', "").replace('"p":[0.8166667,0.1,0.0833333]', '"p":[]'),
            "fewer probabilities",
        ),
        ("vw-text", "data.vw", CB, f"{DIGITS}:2:0.4 | a", "not exactly one label"),
        ("vw-text", "data.vw", CB, "1:2:nan | a", "not a decision"),
        ("obd", "all.csv", OBD.rsplit("\n", 2)[0], f"0,{HUGE},1,2,1,0.0125,c,0,4", "the line is no CSV"),
        ("obd", "all.csv", OBD.rsplit("\n", 2)[0], "0,2019-11-24,1,2,1,nan,c,0,4", "not a decision"),
        ("mind", "behaviors.tsv", MIND.splitlines()[0], "2\tU\t2019-11-11\t\tN1-1", "a time that is not like"),
        ("movielens", "ratings.csv", "1,2,3.5,4", f"1,{HUGE},3.5,4", "the line is no CSV"),
        ("criteo", "train.txt", CRITEO_BANNERS.rstrip("\n"), f"example 1: h 1 0.5 1 {DIGITS} 1:2", "first line"),
        ("criteo", "train.txt", CRITEO_BANNERS.rstrip("\n"), "example 1: h 1 nan 1 1 1:2\n0 exid:1 1:2", "propensity"),
    ],
)
def test_a_value_that_nobody_foresaw_costs_its_decision_alone(
    tmp_path: Path, name: str, file: str, good: str, bad: str, why: str
) -> None:
    files = {file: f"{good}\n", "item_context.csv": OBD_ITEMS}
    rows, before = converted(name, files, tmp_path)

    found, log = converted(name, {**files, file: f"{good}\n{bad}\n"}, tmp_path)

    assert found == rows
    more = {reason: count - reasons(before).get(reason, 0) for reason, count in reasons(log).items()}
    ((reason, count),) = ((reason, count) for reason, count in more.items() if count)
    assert (why in reason, count) == (True, 1), reason


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("obd", {"all.csv": OBD, "item_context.csv": OBD_ITEMS[:-4] + "\n2,\n"}, r"csv:4 has more or fewer columns"),
        ("obd", {"all.csv": OBD, "item_context.csv": OBD_ITEMS + "2,2,0.1,a,b\n"}, r"csv:4 has more or fewer columns"),
        ("obd", {"all.csv": OBD, "item_context.csv": OBD_ITEMS + HUGE}, r"csv:4: the line is no CSV"),
        ("obd", {"all.csv": HUGE, "item_context.csv": OBD_ITEMS}, r"all.csv: the line is no CSV"),
        ("movielens", {"ratings.csv": "1,2,3.5,4\n", "movies.csv": HUGE}, r"csv:1: the line is no CSV"),
    ],
)
def test_what_a_log_cannot_do_without_is_named_where_it_is_broken(
    tmp_path: Path, name: str, files: Mapping[str, str], said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        converted(name, files, tmp_path)


def test_an_age_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    people = "1|24|M|technician|85711\n2||F|other|94043\n3|nan|F|other|94043\n"
    rows, _ = converted("movielens", {"u.data": "1\t5\t3\t4\n2\t5\t3\t4\n3\t5\t3\t4\n", "u.user": people}, tmp_path)

    assert [row["context"].get("age") for row in rows] == [24.0, None, None]
