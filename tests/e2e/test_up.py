"""``banditmesh up`` as a user runs it: what it prints can be copied, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from banditmesh.local import ports
from tests.support.command import HEALTHY, ROOT, Up, alive, banditmesh, environment, running_up
from tests.support.eventually import eventually_true

pytestmark = pytest.mark.timeout(180)
PARTS = 7
"""Kafka, Valkey and five services."""
SERVICES = ("importer", "crs_engine", "tracker", "joiner", "learner")
TAKEN = 7051 + SERVICES.index("tracker")
BROKEN_JAVA = """#!/bin/sh
if [ "$1" = -version ]; then echo 'openjdk version "17.0.1"' >&2; exit; fi
echo 'no [memory]'; exit 3
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The quickstart's mesh, running, but for the tracker not where it should be; one of the tests stops it."""
    with socket.socket() as somebody, running_up(tmp_path_factory.mktemp("up") / "mesh") as up:
        if ports.is_free(TAKEN):  # else it is taken, just as well
            somebody.bind(("127.0.0.1", TAKEN))
            somebody.listen()
        up.wait_until(HEALTHY)
        yield up


def bash(script: str) -> str:
    """Run it as if typed in line by line; return what it prints."""
    path = f"{os.environ['PATH']}:{sysconfig.get_path('scripts')}"
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-O", "expand_aliases", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment({"PATH": path}),
        cwd=ROOT,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    return run.stdout + run.stderr


def address(up: Up, service: str) -> str:
    """As the table says."""
    return re.search(rf"{service} .*?(127\.0\.0\.1:\d+)", up.said)[1]  # type: ignore[index]


def test_every_line_that_it_prints_can_be_copied_into_a_shell(up: Up) -> None:
    lines = up.said.partition("in a second terminal:")[2].partition(HEALTHY)[0]
    answers = bash(lines)
    assert answers.count('"EVENT_STATUS_ACCEPTED"') == 2
    assert '"content_id": "' in answers
    assert answers.count('"IMPORT_STATE_SUCCEEDED"') >= 1
    assert '"status": "SERVING"' in answers


def test_all_three_mappings_are_imported_and_each_user_gets_a_content(up: Up) -> None:
    importer = f"grpcurl -plaintext {address(up, 'importer')} banditmesh.importer.v1.ImporterService/ListImportJobs"
    eventually_true(lambda: bash(importer).count('"IMPORT_STATE_SUCCEEDED"') == 4)
    for user in ("ada", "bob", "eve"):
        request = f'\'{{"placement": "talk-head-jp", "user_id": "{user}"}}\''
        method = "banditmesh.crs_engine.v1.CrsEngineService/SelectContent"
        answer = bash(f"grpcurl -plaintext -d {request} {address(up, 'crs_engine')} {method}")
        assert '"origin": "ORIGIN_POLICY"' in answer, answer


def test_the_commands_of_the_readme_work_word_for_word(up: Up) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (script,) = (block for block in blocks if "grpcurl -plaintext" in block)
    for index, service in enumerate(SERVICES):
        script = script.replace(f"localhost:{7051 + index}", address(up, service))
    program = Path(sysconfig.get_path("scripts")) / "grpcurl"
    answers = bash(script.replace("$PWD/.venv/bin/grpcurl", str(program)))
    assert answers.count('"EVENT_STATUS_ACCEPTED"') == 2


def test_a_port_that_is_taken_is_said_and_another_one_is_used(up: Up) -> None:
    tracker = address(up, "tracker")
    assert tracker != f"127.0.0.1:{TAKEN}"
    assert f"{TAKEN} or its metrics port is taken by somebody else: tracker is at {tracker}." in up.said


def test_a_second_mesh_on_the_same_folder_is_refused(up: Up) -> None:
    run = banditmesh("up", "--dir", up.output.with_suffix(""))
    assert run.returncode == 1
    assert "another one runs on" in run.stderr
    assert "choose another --dir" in run.stderr


@pytest.mark.parametrize("part", ["services.tracker", "valkey-server"])
def test_a_part_that_is_killed_is_started_again_and_that_is_said(up: Up, part: str) -> None:
    name = part.removeprefix("services.").removesuffix("-server")
    os.kill(up.children[part], signal.SIGKILL)
    up.wait_until(f"{name}: ended (SIGKILL), starting again")
    up.wait_until(f"{name}: ready after", times=2)


def test_ctrl_c_stops_everything_and_leaves_no_process(up: Up) -> None:
    children = up.children
    assert len(children) == PARTS
    up.send(signal.SIGINT)
    assert up.wait() == 0
    assert "nothing is left running" in up.said
    assert alive(children) == []


def test_what_a_first_run_has_imported_is_there_in_the_second_and_a_kill_of_it_takes_its_children_along(up: Up) -> None:
    with running_up(up.output.with_suffix("")) as second:
        second.wait_until(HEALTHY)
        importer = address(second, "importer")
        jobs = bash(f"grpcurl -plaintext {importer} banditmesh.importer.v1.ImporterService/ListImportJobs")
        assert jobs.count('"IMPORT_STATE_SUCCEEDED"') == 4
        children = second.children
        assert len(children) == PARTS
        second.send(signal.SIGKILL)
        second.wait()
        eventually_true(lambda: not alive(children))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_starts_it_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with running_up(tmp_path / "mesh") as up:
        up.wait_until("valkey: ready")
        children = up.children
        assert "kafka.Kafka" in children
        up.send(number)
        assert up.wait() == 130
        assert "Stopped before all was up" in up.said
        assert alive(children) == []


OWN = """
services: {films: {logics: [similar]}, books: {logics: [new]}}
placements: {home: {sources: [films/similar, books/new], eligible: used_services}}
kafka: {partitions: 1}
join: {window: 10s}
"""


def test_with_ones_own_mesh_and_a_folder_beyond_ascii_the_printed_lines_are_a_whole_round(tmp_path: Path) -> None:
    config = tmp_path / "mesh.yaml"
    config.write_text(OWN)
    folder = tmp_path / "Grüße, 世界" / "mesh"
    folder.parent.mkdir()
    with running_up(folder, "--config", str(config)) as up:
        up.wait_until(HEALTHY)
        lines = up.said.partition("in a second terminal:")[2].partition(HEALTHY)[0]
        assert re.findall(r"^\w+$", lines, re.MULTILINE) == []  # the end of a heading that was wrapped
        imports, _, visit = lines.partition("# App backends")
        bash(imports)
        listing = f"grpcurl -plaintext {address(up, 'importer')} banditmesh.importer.v1.ImporterService/ListImportJobs"
        eventually_true(lambda: bash(listing).count('"IMPORT_STATE_SUCCEEDED"') == 3)
        answers = bash("# App backends" + visit)
        assert answers.count('"EVENT_STATUS_ACCEPTED"') == 2, answers
        assert '"placement": "home"' in lines


def test_a_wrong_configuration_ends_it_with_2_and_names_the_keys(tmp_path: Path) -> None:
    config = tmp_path / "mesh.yaml"
    quickstart = (ROOT / "banditmesh/quickstart/mesh.yaml").read_text()
    config.write_text(quickstart.replace("slot_for", "slott_for").replace("linucb:", "linucp:"))
    run = banditmesh("up", "--config", config, "--dir", tmp_path / "mesh")
    assert run.returncode == 2
    assert "placements.talk-head-jp.mute.slott_for: unknown key; did you mean 'slot_for'?" in run.stderr
    assert "variants.learned.policy.linucp: does not exist; did you mean 'linucb'?" in run.stderr


def test_a_kafka_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    java = tmp_path / "java/bin/java"
    java.parent.mkdir(parents=True)
    java.write_text(BROKEN_JAVA)
    java.chmod(0o755)
    env = {"JAVA_HOME": str(java.parents[1]), "BANDITMESH_CACHE": str(_cache_with_jars_only(tmp_path))}
    run = banditmesh("up", "--dir", tmp_path / "mesh", env=env)
    assert run.returncode == 1
    assert "did not start" in run.stderr
    assert "no [memory]" in run.stderr
    assert "Traceback" not in run.stderr


def _cache_with_jars_only(folder: Path) -> Path:
    """So that a Java which is broken leaves nothing in the real cache."""
    from banditmesh.local import cache

    ours = folder / "cache"
    ours.mkdir()
    for path in cache.folder().glob("kafka-*"):
        (ours / path.name).symlink_to(path)
    return ours


@pytest.mark.parametrize(
    ("option", "address_", "says"),
    [
        ("--kafka", "127.0.0.1:{port}", "Kafka cannot be reached: connection refused"),
        ("--redis", "redis://127.0.0.1:{port}", "does not answer"),
        ("--store", "s3://bucket?endpoint=http://127.0.0.1:{port}", "--store s3://bucket"),
    ],
)
def test_a_server_that_is_not_there_is_named_at_once(tmp_path: Path, option: str, address_: str, says: str) -> None:
    where = address_.format(port=ports.free(1)[0])
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    run = banditmesh("up", "--dir", tmp_path / "mesh", option, where, env=keys, timeout_s=30)
    assert run.returncode == 1
    assert f"{option} {where}" in run.stderr
    assert says in run.stderr
    assert "starting" not in run.stdout


@pytest.mark.parametrize(
    ("option", "value"), [("--kafka", "nowhere"), ("--redis", "127.0.0.1:6379"), ("--store", "bucket")]
)
def test_what_is_no_address_is_a_mistake_of_the_command_line(tmp_path: Path, option: str, value: str) -> None:
    run = banditmesh("up", "--dir", tmp_path / "mesh", option, value)
    assert run.returncode == 2
    assert f"{option} {value}: expected" in run.stderr


def test_fresh_throws_away_what_was_there_but_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "mesh"
    (folder / "store").mkdir(parents=True)
    (folder / "store" / "old").touch()
    (folder / "letter").touch()
    with running_up(folder, "--fresh") as up:
        up.wait_until("valkey: ready")
    assert not (folder / "store" / "old").exists()
    assert (folder / "letter").exists()


def test_with_tls_the_printed_lines_trust_the_throw_away_authority(tmp_path: Path) -> None:
    with running_up(tmp_path / "mesh", "--tls") as up:
        up.wait_until(HEALTHY)
        (line,) = [line for line in up.said.splitlines() if line.endswith("grpc.health.v1.Health/Check")]
        assert "-cacert" in line
        assert "TLS: the five services" in up.said.partition(HEALTHY)[0]
        assert "SERVING" in bash(line)
        plain = line.replace(line[line.index("-cacert") : line.index("ca.pem") + len("ca.pem")], "-plaintext")
        with pytest.raises(AssertionError):
            bash(plain)
        up.send(signal.SIGINT)
        assert up.wait() == 0
