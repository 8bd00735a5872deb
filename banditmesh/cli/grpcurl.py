"""Commands to copy into a second terminal: what ``banditmesh up`` prints."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from banditmesh.runtime.mesh import Mesh

QUICKSTART = Path(__file__).parents[1] / "quickstart"
_VERSION = "1"
_MAPPINGS = {
    ("comics", "new-volume"): "comics-new-volume.jsonl",
    ("weather", "today"): "weather-today.csv",
    ("coupons", "nearby"): "coupons-nearby.csv",
}
_FIRST_JOB = "mapping-comics-new-volume-1-75e00d21"
"""The importer derives a job's id from what is imported."""
_MOST_MAPPINGS = 3
_VISITOR = {"placement": "talk-head-jp", "user_id": "ada"}


@dataclass(frozen=True)
class Lines:
    """Commands under a heading that says who would send them."""

    heading: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class _Calls:
    """Writes commands."""

    addresses: Mapping[str, str]
    program: str

    def __call__(self, service: str, method: str, request: Mapping[str, object]) -> str:
        data = f" -d {shlex.quote(json.dumps(request, ensure_ascii=False))}" if request else ""
        return f"{self.program}{data} {self.addresses[service]} banditmesh.{method}"

    def mapping(self, service: str, logic: str, uri: str) -> str:
        """Notify a mapping file."""
        request = {"service": service, "logic": logic, "uri": uri, "version": _VERSION}
        return self("importer", "importer.v1.ImporterService/NotifyMapping", request)

    def visit(self, visitor: Mapping[str, str]) -> tuple[str, str]:
        """What to show, and what became of it."""
        select = self("crs_engine", "crs_engine.v1.CrsEngineService/SelectContent", visitor)
        token = r"""sed -n 's/.*"impression_*[tT]oken": "\([^"]*\)".*/\1/p'"""  # grpcurl spells it by its version
        events = ", ".join(f"""{{"impression_token": "'$TOKEN'", "{kind}": {{}}}}""" for kind in ("shown", "click"))
        track = f"""{self.program} -d '{{"events": [{events}]}}' {self.addresses["tracker"]}"""
        return (
            f"TOKEN=$({select} | tee -a /dev/stderr | {token})",
            f"{track} banditmesh.tracker.v1.EventTrackerService/TrackEvents",
        )

    def why(self, visitor: Mapping[str, str]) -> tuple[str, ...]:
        """Why it was that, what is known of the user, and what was learned."""
        return (
            self("crs_engine", "crs_engine.v1.CrsEngineService/ExplainDecision", {"dry_run": visitor}),
            self("joiner", "joiner.v1.JoinerService/GetUserState", {"user_id": visitor["user_id"]}),
            self("crs_engine", "crs_engine.v1.CrsEngineService/GetModelStatus", {}),
        )


def grpcurl_lines(addresses: Mapping[str, str], *, own: Mesh | None = None, ca: Path | None = None) -> list[Lines]:
    """Return commands for a POSIX shell, as they stand: a whole round, from import to learning.

    Args:
        addresses: ``host:port`` of each service.
        own: The mesh that is running, if it is not the one to play with.
        ca: The authority of the services' certificates; None: they speak plaintext.
    """
    program = f"{_program()} {'-plaintext' if ca is None else f'-cacert {shlex.quote(os.path.relpath(ca))}'}"
    engine = addresses["crs_engine"]
    call = _Calls(addresses, program)
    look = Lines(
        "What there is",
        (
            f"{program} {engine} list",
            f"{program} {engine} describe banditmesh.crs_engine.v1.CrsEngineService.SelectContent",
            f"{program} {engine} grpc.health.v1.Health/Check",
        ),
    )
    imports, visitor = _play(call) if own is None else _own(call, own)
    return [
        look,
        imports,
        Lines("App backends: what to show, and what became of it", call.visit(visitor)),
        Lines("Engineers: why, what is known of the user, and what was learned", call.why(visitor)),
    ]


def _play(call: _Calls) -> tuple[Lines, Mapping[str, str]]:
    """The files that come with the package."""
    profiles = {"uri": (QUICKSTART / "profiles.csv").as_uri(), "version": _VERSION}
    commands = (
        call("importer", "importer.v1.ImporterService/NotifyProfiles", profiles),
        *(call.mapping(service, logic, (QUICKSTART / file).as_uri()) for (service, logic), file in _MAPPINGS.items()),
        call("importer", "importer.v1.ImporterService/WatchImportJob", {"job_id": _FIRST_JOB}),
    )
    return Lines("Service teams: profiles, and which contents each logic proposes to whom", commands), _VISITOR


def _own(call: _Calls, mesh: Mesh) -> tuple[Lines, Mapping[str, str]]:
    """A file with one user for each of some logics, where ``mesh.yaml`` lets it be; the team's own replace them."""
    placement, sources = next(
        (name, mapped)
        for name, each in mesh.placements.items()
        if (mapped := [source for source in each.sources if "/" in source]) or name == list(mesh.placements)[-1]
    )
    every = [f"{service}/{logic}" for service, each in mesh.services.items() for logic in each.logics]
    commands: list[str] = []
    jobs = call("importer", "importer.v1.ImporterService/ListImportJobs", {})
    visitor = {"placement": placement, "user_id": "ada"}
    if mesh.importing.allowed_uris == []:
        return Lines("Service teams: importing.allowed_uris is empty, so nothing can be imported", (jobs,)), visitor
    folder, heading = _folder(mesh.importing.allowed_uris)
    here = Path(url2pathname(urlsplit(folder).path)) if folder.startswith("file://") else None
    if here is not None and not here.is_dir():
        commands.append(f"mkdir -p {shlex.quote(str(here))}")

    def put(name: str, rows: str) -> str:
        """Write a file, where it lies on this machine; its URI."""
        if here is not None:
            commands.append(f"printf {shlex.quote(rows)} > {shlex.quote(str(here / name))}")
        return f"{folder}/{name}"

    if mesh.placements[placement].eligible == "used_services":
        uri = put("profiles.csv", f"user_id,used_services\\nada,{'|'.join(mesh.services)}\\n")
        profiles = {"uri": uri, "version": _VERSION}
        commands.append(call("importer", "importer.v1.ImporterService/NotifyProfiles", profiles))
    for source in (sources or every)[:_MOST_MAPPINGS]:
        service, logic = source.split("/")
        uri = put(f"{service}-{logic}.csv", f"user_id,contents\\nada,{service}-1|{service}-2\\n")
        commands.append(call.mapping(service, logic, uri))
    return Lines(heading, (*commands, jobs)), visitor


def _folder(allowed: Sequence[str] | None) -> tuple[str, str]:
    """The URI of a folder that files may be imported from, and what to say about it. ``allowed``: in ``mesh.yaml``."""
    anywhere = [Path(tempfile.gettempdir()).as_uri()]
    local = anywhere if allowed is None else [each for each in allowed if each.startswith("file://")]
    if local:
        return local[0].rstrip("/"), "Service teams: files of one user (put your own in their place), and their import"
    return (
        (allowed or [""])[0].rstrip("/"),
        "Service teams: an import (importing.allowed_uris lets no local file in: put files with these names there)",
    )


def _program() -> str:
    """As one can type it here: by name if that is on the PATH, else by the path to the one in our environment."""
    if shutil.which("grpcurl"):
        return "grpcurl"
    ours = shutil.which("grpcurl", path=sysconfig.get_path("scripts"))
    return "grpcurl" if ours is None else shlex.quote(os.path.relpath(ours))
