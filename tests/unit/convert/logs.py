"""Logs of seven kinds, a few lines each as their writers write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from banditmesh.convert.log import Log
from banditmesh.convert.registry import convert
from banditmesh.decisions.reader import read

Row = dict[str, Any]

DSJSON = (
    '{"_label_cost":-1,"_label_probability":0.8166667,"_label_Action":2,"_labelIndex":1,"o":[{"v":1.0,"EventId":"13"}],'
    '"Timestamp":"2021-02-04T16:31:29.2460000Z","Version":"1","EventId":"13118d9b","a":[2,1,3],'
    '"c":{"GUser":{"id":"a","major":"eng","age":3,"tags":["x","y"]},"_multi":[{"TAction":{"topic":"SkiConditions-VT"}},'
    '{"_tag":"herbs","TAction":{"topic":"HerbGarden","hot":[0.5,1]}},{"TAction":{"id":"bmw","topic":"BMW"}}]},'
    '"p":[0.8166667,0.1,0.0833333],"VWState":{"m":"N/A"}}\n'
    '{"RewardValue":1.0,"EnqueuedTimeUtc":"2021-02-04T16:31:30Z","EventId":"13118d9b"}\n'
    '{"_outcomes":[{"_label_cost":0}],"c":{}}\n'
    "no json\n"
)
VW_CB = "1:2:0.4 | a c:0.5\n3:-0.5:0.2 |u b=x b=y |w d\n\n4:1.2:0.5 | a\n2:1.0:1 3:0:0.5 | a\n"
VW_ADF = (
    "shared |User user=Tom time_of_day=morning\n|Action article=politics\n0:-1:0.25 'sport |Action article=sports\n\n"
    "|Action article=politics\n|Action article=music\n\n"
)
OBD_HEADER = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0,user-item_affinity_1"
)
OBD = f"{OBD_HEADER}\n0,2019-11-24 00:01:03.979311+00:00,1,2,1,0.0125,cef3390e,0.0,4.0\n1,2019-11-24,7,1,0,0.1,x,0,0\n"
OBD_ITEMS = ",item_id,item_feature_0,item_feature_1\n0,0,-0.67,c82d\n1,1,0.5,ae3f\n"
MIND = (
    "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n"
    "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678 N39317\n"
)
MIND_NEWS = "N55189\tsports\tfootball\tTitle\t…\turl\t[]\t[]\nN35729\tnews\tnewsus\tTitle\t…\turl\t[]\t[]\n"
R6A = "1241160900 109513 1 |user 2:0.000012 6:0.999958 1:1.0 |109498 2:0.3 1:1.0 |109513 2:0.2 1:1.0\n"
R6B = "1317513291 id-560620 0 |user 1 9 11 |id-552077 |id-560620 3\n1317513291 id-1 0 |user 1 |id-2\n"
CRITEO_BANNERS = (
    "example 27631: 394a 1 0.25 1 2 1:300 2:250 2:7\n0 exid:27631 11:5\n0 exid:27631 11:6\n"
    "example 27632: 394b 0 40 1 2 1:300\n0 exid:27632 11:5\n0 exid:27632 11:6\n"
    "example 27633: 394c 0 0.5 2 1 1:300\n0 exid:27633 11:5\n"
)
CRITEO_CLICKS = "1\t" + "\t".join(["5", *[""] * 12]) + "\t" + "\t".join(["68fd1e64", *[""] * 25]) + "\n0\tx\n"


def converted(name: str, files: Mapping[str, str | bytes], folder: Path, *, file: str = "") -> tuple[list[Row], Log]:
    for each, body in files.items():
        (folder / each).write_bytes(body if isinstance(body, bytes) else body.encode())
    log = Log(folder / file if file else folder)
    out = folder / "out.jsonl"
    rows = convert(name, log, out)
    assert len(list(read(out))) == rows  # replay and fit read it
    return [json.loads(line) for line in out.read_text().splitlines()], log


def reasons(log: Log) -> dict[str, int]:
    return {reason: each.count for reason, each in log.skipped.items()}
