"""Logs of seven kinds, a few lines each as their writers write them, become decision logs."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from banditmesh.cli.commands import app
from banditmesh.convert.log import Log
from banditmesh.convert.registry import CONVERTERS, convert
from banditmesh.decisions.reader import read
from banditmesh.runtime.errors import InvalidArgument, NotFound
from tests.unit.convert.logs import (
    CRITEO_BANNERS,
    CRITEO_CLICKS,
    DSJSON,
    MIND,
    MIND_NEWS,
    OBD,
    OBD_ITEMS,
    R6A,
    R6B,
    VW_ADF,
    VW_CB,
    Row,
    converted,
    reasons,
)


def test_decision_service_json(tmp_path: Path) -> None:
    (row,), log = converted("vw-dsjson", {"data.json": DSJSON}, tmp_path)

    assert row == {
        "context": {"GUser.id": "a", "GUser.major": "eng", "GUser.age": 3, "GUser.tags": ["x", "y"]},
        "candidates": [
            {"id": "1", "features": {"TAction.topic": "SkiConditions-VT"}},
            {"id": "herbs", "features": {"TAction.topic": "HerbGarden", "TAction.hot.0": 0.5, "TAction.hot.1": 1}},
            {"id": "bmw", "features": {"TAction.id": "bmw", "TAction.topic": "BMW"}},
        ],
        "shown": 1,
        "reward": 1.0,
        "propensity": 0.8166667,
        "t": "2021-02-04T16:31:29.2460000Z",
    }
    assert reasons(log) == {
        "a reward without its decision (dangling)": 1,
        "several slots (_outcomes)": 1,
        "the line is not JSON": 1,
    }
    assert log.skipped["the line is not JSON"].first.endswith("data.json:4")


def test_a_decision_with_a_key_twice_is_skipped_rather_than_guessed_at(tmp_path: Path) -> None:
    whole = DSJSON.splitlines()[0]
    twice = whole.replace('{"_label_cost"', '{"_label_cost":0,"_label_cost"', 1)
    assert twice != whole

    (_row,), log = converted("vw-dsjson", {"data.json": f"{whole}\n{twice}\n"}, tmp_path)

    assert reasons(log) == {"a key stands twice in an object": 1}


def test_vw_text_with_an_action_a_line(tmp_path: Path) -> None:
    rows, log = converted("vw-text", {"a.vw": VW_CB}, tmp_path, file="a.vw")

    assert [[each["id"] for each in row["candidates"]] for row in rows] == [["1", "2", "3", "4"]] * 3
    assert [(row["shown"], row["propensity"], row["reward"]) for row in rows] == [
        (0, 0.4, -2.0),
        (2, 0.2, 0.5),
        (3, 0.5, -1.2),
    ]
    assert rows[0]["context"] == {"a": 1.0, "c": 0.5}
    assert rows[1]["context"] == {"u.b": ["x", "y"], "w.d": 1.0}
    assert reasons(log) == {"not exactly one label action:cost:probability": 1}


def test_vw_text_with_action_dependent_features(tmp_path: Path) -> None:
    (row,), log = converted("vw-text", {"a.vw": VW_ADF}, tmp_path, file="a.vw")

    assert row == {
        "context": {"User.user": "Tom", "User.time_of_day": "morning"},
        "candidates": [
            {"id": "1", "features": {"Action.article": "politics"}},
            {"id": "sport", "features": {"Action.article": "sports"}},
        ],
        "shown": 1,
        "propensity": 0.25,
        "reward": 1.0,
    }
    assert reasons(log) == {"not exactly one action with a label": 1}


def test_the_open_bandit_dataset(tmp_path: Path) -> None:
    (row,), log = converted("obd", {"all.csv": OBD, "item_context.csv": OBD_ITEMS}, tmp_path)

    assert row == {
        "t": "2019-11-24 00:01:03.979311+00:00",
        "context": {"user_feature_0": "cef3390e", "position": "2"},
        "candidates": [
            {"id": "0", "features": {"item_feature_0": -0.67, "item_feature_1": "c82d", "affinity": 0.0}},
            {"id": "1", "features": {"item_feature_0": 0.5, "item_feature_1": "ae3f", "affinity": 4.0}},
        ],
        "shown": 1,
        "propensity": 0.0125,
        "reward": 1.0,
    }
    assert reasons(log) == {"an item that item_context.csv does not have": 1}


@pytest.mark.parametrize(
    ("files", "features"),
    [
        (
            {
                "u.data": "196\t242\t4\t881250949\n",
                "u.item": b"242|Caf\xe9|1995||url|0|1" + b"|0" * 17 + b"\n",
                "u.user": "196|49|M|writer|55105\n",
            },
            ({"age": 49.0, "gender": "M", "occupation": "writer"}, {"genre": ["Action"]}),
        ),
        (
            {"ratings.dat": "196::242::4::881250949\n", "movies.dat": b"242::Caf\xe9 (1995)::Action|Comedy\n"},
            ({}, {"genre": ["Action", "Comedy"]}),
        ),
        (
            {
                "ratings.csv": "userId,movieId,rating,timestamp\n196,242,4.5,881250949\n",
                "movies.csv": 'movieId,title,genres\n242,"Film, The",Action\n',
            },
            ({}, {"genre": ["Action"]}),
        ),
        (
            {
                "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttime:float\n196\t242\t4\t881250949\n",
                "ml-100k.item": "item_id:token\tt\tyear\tclass\n242\tKolya\t1996\tComedy\n",
            },
            ({}, {"genre": ["Comedy"]}),
        ),
    ],
)
def test_movielens_of_every_age(tmp_path: Path, files: dict[str, str | bytes], features: tuple[Row, Row]) -> None:
    (row,), _ = converted("movielens", files, tmp_path)

    context, film = features
    candidates = [{"id": "242", "features": film}]
    assert row == {
        "user": "196",
        "context": context,
        "candidates": candidates,
        "shown": 0,
        "reward": 1.0,
        "t": 881250949.0,
    }


def test_microsoft_news(tmp_path: Path) -> None:
    (row,), log = converted("mind", {"behaviors.tsv": MIND, "news.tsv": MIND_NEWS}, tmp_path)

    assert row == {
        "t": 1573463158.0,
        "user": "U13740",
        "context": {"history": ["N55189", "N42782"], "history_category": ["sports"]},
        "candidates": [
            {"id": "N55689", "features": {}, "reward": 1.0},
            {"id": "N35729", "features": {"category": "news", "subcategory": "newsus"}, "reward": 0.0},
        ],
    }
    assert reasons(log) == {"an article without a click label, as in the test set": 1}


def test_yahoo_front_page(tmp_path: Path) -> None:
    (first, second), log = converted("yahoo-r6", {"data.txt": gzip.compress((R6A + R6B).encode())}, tmp_path)

    assert first == {
        "t": 1241160900.0,
        "context": {"user_2": 0.000012, "user_6": 0.999958, "user_1": 1.0},
        "candidates": [
            {"id": "109498", "features": {"article_2": 0.3, "article_1": 1.0}},
            {"id": "109513", "features": {"article_2": 0.2, "article_1": 1.0}},
        ],
        "shown": 1,
        "propensity": 0.5,
        "reward": 1.0,
    }
    assert second["candidates"][1] == {"id": "id-560620", "features": {"article_3": 1.0}}
    assert reasons(log) == {"the shown article is not among the candidates": 1}


def test_criteos_banners(tmp_path: Path) -> None:
    rows, log = converted("criteo", {"train.txt": bz2.compress(CRITEO_BANNERS.encode())}, tmp_path)

    assert rows[0] == {
        "context": {"f1": "300", "f2": ["250", "7"]},
        "candidates": [{"id": "1", "features": {"f11": "5"}}, {"id": "2", "features": {"f11": "6"}}],
        "shown": 0,
        "propensity": 0.25,
        "reward": 1.0,
    }
    assert rows[1]["propensity"] == 1 / 40
    assert reasons(log) == {"a banner of several slots": 1}


def test_criteos_clicks(tmp_path: Path) -> None:
    (row,), log = converted("criteo", {"train.txt": CRITEO_CLICKS}, tmp_path)

    candidates = [{"id": "ad"}]
    assert row == {"context": {"I1": 5.0, "C1": "68fd1e64"}, "candidates": candidates, "shown": 0, "reward": 1.0}
    assert reasons(log) == {"not 40 columns": 1}


@pytest.mark.parametrize("name", CONVERTERS)
def test_what_is_something_else_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "item_context.csv").write_text(OBD_ITEMS)
    (tmp_path / "log").write_text("a,b\nnothing of the kind\n")
    out = tmp_path / "out.jsonl"
    out.write_text("before")

    with pytest.raises(InvalidArgument, match=f"nothing of .*log is {name}"):
        convert(name, Log(tmp_path / "log"), out)

    assert out.read_text() == "before"
    assert not list(tmp_path.glob(".*"))


def test_a_row_that_replay_would_refuse_is_not_written(tmp_path: Path) -> None:
    body = R6A + R6A.replace(" 1 |user", " nan |user")

    rows, log = converted("yahoo-r6", {"data.txt": body}, tmp_path)

    assert len(rows) == 1
    assert reasons(log) == {"not a decision: must be a finite number (reward)": 1}


def test_a_log_that_is_not_there_and_one_that_is_cut_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(gzip.compress(R6A.encode() * 100)[:-20])

    with pytest.raises(NotFound, match=r"is a folder without behaviors\.tsv"):
        convert("mind", Log(tmp_path), tmp_path / "out")
    with pytest.raises(InvalidArgument, match="cut is broken after line"):
        convert("yahoo-r6", Log(tmp_path / "cut"), tmp_path / "out")


def test_the_command_says_what_could_not_be_converted(tmp_path: Path) -> None:
    (tmp_path / "r6").write_text(R6A + R6B)

    plain = CliRunner().invoke(
        app, ["convert", "--from", "yahoo-r6", str(tmp_path / "r6"), str(tmp_path / "o.jsonl.gz")]
    )
    told = CliRunner().invoke(
        app, ["convert", "--from", "yahoo-r6", "--json", str(tmp_path / "r6"), str(tmp_path / "o.jsonl.gz")]
    )

    assert "2 decisions in" in plain.output
    assert "the shown article is not among" in plain.output
    found = json.loads(told.stdout)
    assert (found["rows"], found["skipped"]["the shown article is not among the candidates"]["count"]) == (2, 1)
    assert len(list(read(tmp_path / "o.jsonl.gz"))) == 2


LOGS: Mapping[str, tuple[str, str]] = {
    "vw-dsjson": ("data.json", DSJSON.splitlines()[0] + "\n"),
    "vw-text": ("data.vw", "1:2:0.4 | a c:0.5\n3:-0.5:0.2 | b\n"),
    "obd": ("all.csv", OBD.rsplit("\n", 2)[0] + "\n"),
    "movielens": ("ratings.csv", "userId,movieId,rating,timestamp\n196,242,4.5,881250949\n"),
    "mind": ("behaviors.tsv", MIND.splitlines()[0] + "\n"),
    "yahoo-r6": ("data.txt", R6A),
    "criteo": ("train.txt", CRITEO_CLICKS.splitlines()[0] + "\n"),
}


def zstd(body: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(body)
    return sink.getvalue().to_pybytes()


WRITTEN: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda body: b"\xef\xbb\xbf" + body.replace(b"\n", b"\r\n") + b"\r\n",
    ".gz": lambda body: gzip.compress(b"\xef\xbb\xbf" + body),
    ".bz2": bz2.compress,
    ".zst": zstd,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_line_ends_marks_and_compressions_change_nothing(tmp_path: Path, name: str) -> None:
    file, body = LOGS[name]
    (tmp_path / "plain").mkdir()
    beside = {"item_context.csv": OBD_ITEMS}
    rows, _ = converted(name, {file: body, **beside}, tmp_path / "plain")

    for at, (ending, written) in enumerate(WRITTEN.items()):
        folder = tmp_path / str(at)
        folder.mkdir()
        others = {f"{each}{ending}": written(text.encode()) for each, text in beside.items()}
        found, log = converted(name, {file + ending: written(body.encode()), **others}, folder)
        assert (found, reasons(log)) == (rows, {}), ending


@pytest.mark.parametrize("name", CONVERTERS)
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "it is empty|has no column"),
        (b"PK\x03\x04ml-100k/", "is a ZIP archive: unpack it"),
        (gzip.compress(b"dac/train.txt".ljust(257, b"\0") + b"ustar  \0"), "is a tar archive: unpack it"),
        (b"PAR1", "is Parquet; convert reads text"),
        (b"caf\xe9\n", "after line 0: the line is not UTF-8"),
        (lzma.compress(b"x" * 1000)[:-20], "is broken after line"),
        (gzip.compress(b"x\n" * 9)[:12] + b"\xff" * 20, "is broken after line"),
        (zstd(b"x\n" * 1000)[:-9], "is broken after line|nothing of .* is"),
    ],
    ids=["empty", "zip", "tar.gz", "Parquet", "Latin-1", "cut xz", "damaged gzip", "cut zstd"],  # gzip writes the time
)
def test_what_holds_no_lines_is_named(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    (tmp_path / "item_context.csv").write_text(OBD_ITEMS)
    (tmp_path / "log").write_bytes(body)

    with pytest.raises(InvalidArgument, match=said):
        convert(name, Log(tmp_path / "log"), tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("yahoo-r6", ["ydata-fp-td-clicks-v1_0.20090502.gz", "ydata-fp-td-clicks-v1_0.20090501.gz"]),
        ("criteo", ["day_10", "day_9"]),
        ("vw-dsjson", ["2021-02-05_0.json", "2021-02-04_0.json"]),
    ],
)
def test_all_days_of_a_folder_are_read_in_their_order(tmp_path: Path, name: str, files: list[str]) -> None:
    body = LOGS[name][1].encode()
    second = (
        body.replace(b"1241160900", b"1241160999").replace(b"68fd1e64", b"9").replace(b'"major":"eng"', b'"major":"x"')
    )

    one, _ = converted(name, {"log": body}, tmp_path, file="log")
    two, _ = converted(name, {"log": second}, tmp_path, file="log")
    (tmp_path / "days").mkdir()
    packed = {
        each: gzip.compress(text) if each.endswith(".gz") else text
        for each, text in zip(files, (second, body), strict=True)
    }
    rows, _ = converted(name, packed, tmp_path / "days")

    assert one != two
    assert rows == [*one, *two]


def test_kaggles_movielens_has_times_in_words(tmp_path: Path) -> None:
    ratings = '"userId","movieId","rating","timestamp"\n1,2,3.5,"2005-04-02 23:53:47"\n1,29,4,yesterday\n'
    movies = '"movieId","title","genres"\n2,"Jumanji (1995)","Adventure|Children|Fantasy"\n'

    (row,), log = converted("movielens", {"rating.csv": ratings, "movie.csv": movies}, tmp_path)

    assert (row["t"], row["candidates"][0]["features"]) == (
        "2005-04-02 23:53:47",
        {"genre": ["Adventure", "Children", "Fantasy"]},
    )
    assert reasons(log) == {"not a decision: must be seconds since 1970, or a time like 2026-11-22T10:30:00Z (t)": 1}


def test_recboles_files_of_every_size_are_found(tmp_path: Path) -> None:
    files = {
        "ml-1m.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t978300760\n",
        "ml-1m.item": "item_id:token\tt\tyear\tclass\n2\tToy\t1995\tComedy Drama\n",
    }

    (row,), _ = converted("movielens", files, tmp_path)

    assert row["candidates"] == [{"id": "2", "features": {"genre": ["Comedy", "Drama"]}}]


def test_a_tag_of_vowpal_wabbit_needs_no_quote_when_it_touches_the_bar(tmp_path: Path) -> None:
    body = "shared | s\n0:-1:0.25 sport|Action a\n music|Action b\n"

    (row,), _ = converted("vw-text", {"data.vw": body}, tmp_path)

    assert [each["id"] for each in row["candidates"]] == ["sport", "2"]


def test_an_event_that_stands_for_dropped_ones_is_noted(tmp_path: Path) -> None:
    event = json.loads(DSJSON.splitlines()[0])
    body = "\n".join(json.dumps({**event, "pdrop": dropped}) for dropped in (0.0, 0.5, 0.9))

    rows, log = converted("vw-dsjson", {"data.json": body}, tmp_path)

    assert len(rows) == 3
    assert [(what[:13], each.count, each.first[-1]) for what, each in log.noted.items()] == [("weighs as one", 2, "2")]
