"""A wall clock that is wrong: what a process sees whose machine's clock was set to another time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from types import ModuleType
from typing import Final

_OURS: Final = ("banditmesh", "services", "aiokafka", "redis", "botocore", "boto3", "prometheus_client", "structlog")
"""Whose modules see the wrong clock. Not grpc's: it compares Python's clock with that of its C core, which is right."""


def prepare(offset_s: str) -> None:
    """Move this process's wall clock by so many seconds; its steady clock goes on as it did."""
    offset, right, right_ns = float(offset_s), time.time, time.time_ns
    wrong = ModuleType("time")
    wrong.__dict__.update(time.__dict__)
    wrong.__dict__["time"] = lambda: right() + offset
    wrong.__dict__["time_ns"] = lambda: right_ns() + round(offset * 1e9)
    for name, module in list(sys.modules.items()):
        if name == __name__ or name.partition(".")[0] not in _OURS:
            continue
        for attribute, value in list(vars(module).items()):
            if value is time:
                setattr(module, attribute, wrong)
            elif value is time.time:
                setattr(module, attribute, wrong.__dict__["time"])
            elif getattr(value, "__name__", "") == "get_current_datetime":  # what S3 requests are signed with
                setattr(module, attribute, partial(_moved, value, offset))


def _moved(now: Callable[..., datetime], offset_s: float, *arguments: object, **options: object) -> datetime:
    return now(*arguments, **options) + timedelta(seconds=offset_s)
