"""Commands to copy into a second terminal: what ``banditmesh up`` prints."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

QUICKSTART = Path(__file__).parents[1] / "quickstart"
_VERSION = "1"
_MAPPINGS = {
    ("comics", "new-volume"): "comics-new-volume.jsonl",
    ("weather", "today"): "weather-today.csv",
    ("coupons", "nearby"): "coupons-nearby.csv",
}
_FIRST_JOB = "mapping-comics-new-volume-1-75e00d21"
"""The importer derives a job's id from what is imported."""
_VISITOR = {"placement": "talk-head-jp", "user_id": "ada"}


@dataclass(frozen=True)
class Lines:
    """Commands under a heading that says who would send them."""

    heading: str
    commands: tuple[str, ...]


def grpcurl_lines(addresses: Mapping[str, str], *, quickstart: bool, ca: Path | None = None) -> list[Lines]:
    """Return commands for a POSIX shell, as they stand.

    Args:
        addresses: ``host:port`` of each service.
        quickstart: The mesh to play with is running: add a whole round, from import to learning.
        ca: The authority of the services' certificates; None: they speak plaintext.
    """
    program = f"{_program()} {'-plaintext' if ca is None else f'-cacert {shlex.quote(os.path.relpath(ca))}'}"
    engine = addresses["crs_engine"]

    def call(service: str, method: str, request: Mapping[str, object]) -> str:
        data = f" -d {shlex.quote(json.dumps(request))}" if request else ""
        return f"{program}{data} {addresses[service]} banditmesh.{method}"

    look = Lines(
        "What there is",
        (
            f"{program} {engine} list",
            f"{program} {engine} describe banditmesh.crs_engine.v1.CrsEngineService.SelectContent",
            f"{program} {engine} grpc.health.v1.Health/Check",
        ),
    )
    if not quickstart:
        return [look]
    mappings = [
        call(
            "importer",
            "importer.v1.ImporterService/NotifyMapping",
            {"service": service, "logic": logic, "uri": (QUICKSTART / file).as_uri(), "version": _VERSION},
        )
        for (service, logic), file in _MAPPINGS.items()
    ]
    profiles = {"uri": (QUICKSTART / "profiles.csv").as_uri(), "version": _VERSION}
    select = call("crs_engine", "crs_engine.v1.CrsEngineService/SelectContent", _VISITOR)
    token = r"""sed -n 's/.*"impression_*[tT]oken": "\([^"]*\)".*/\1/p'"""  # grpcurl spells it by its version
    events = ", ".join(f"""{{"impression_token": "'$TOKEN'", "{kind}": {{}}}}""" for kind in ("shown", "click"))
    track = f"""{program} -d '{{"events": [{events}]}}' {addresses["tracker"]}"""
    return [
        look,
        Lines(
            "Service teams: profiles, and which contents each logic proposes to whom",
            (
                call("importer", "importer.v1.ImporterService/NotifyProfiles", profiles),
                *mappings,
                call("importer", "importer.v1.ImporterService/WatchImportJob", {"job_id": _FIRST_JOB}),
            ),
        ),
        Lines(
            "App backends: what to show, and what became of it",
            (
                f"TOKEN=$({select} | tee -a /dev/stderr | {token})",
                f"{track} banditmesh.tracker.v1.EventTrackerService/TrackEvents",
            ),
        ),
        Lines(
            "Engineers: why, what is known of the user, and what was learned",
            (
                call("crs_engine", "crs_engine.v1.CrsEngineService/ExplainDecision", {"dry_run": _VISITOR}),
                call("joiner", "joiner.v1.JoinerService/GetUserState", {"user_id": "ada"}),
                call("crs_engine", "crs_engine.v1.CrsEngineService/GetModelStatus", {}),
            ),
        ),
    ]


def _program() -> str:
    """As one can type it here: by name if that is on the PATH, else by the path to the one in our environment."""
    if shutil.which("grpcurl"):
        return "grpcurl"
    ours = shutil.which("grpcurl", path=sysconfig.get_path("scripts"))
    return "grpcurl" if ours is None else shlex.quote(os.path.relpath(ours))
