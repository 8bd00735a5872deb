"""What a mesh costs: arithmetic over measured figures that one can check by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from banditmesh.capacity import BUSY_SHARE, CPU_US, Demand, count, plan, values

SMALL = Demand(users=1_000_000, impressions_per_day=5_000_000, peak_rps=2_500)
LARGE = Demand(users=100_000_000, impressions_per_day=500_000_000, peak_rps=250_000, models=10)


def test_a_kibibyte_a_user_and_a_mark_an_impression_are_what_redis_holds() -> None:
    assert plan(SMALL).redis_gib == pytest.approx(1.5 * (1e6 * 1024 + 5e6 / 24 * 7.2 * 120) / 2**30)


def test_ten_times_the_users_and_impressions_take_ten_times_the_memory_and_disk() -> None:
    ten = plan(Demand(10_000_000, 50_000_000, 25_000))
    assert ten.redis_gib == pytest.approx(10 * plan(SMALL).redis_gib)
    assert ten.kafka_gib == pytest.approx(10 * plan(SMALL).kafka_gib)


def test_no_process_is_busier_at_the_peak_than_planned_but_for_what_is_said() -> None:
    for demand in (SMALL, LARGE):
        needed = plan(demand)
        for name in ("engine", "tracker", "joiner", "importer"):
            assert needed.cores[name] / needed.replicas[name] <= BUSY_SHARE
        busiest = needed.cores["learner"] / needed.replicas["learner"]
        assert (busiest > BUSY_SHARE) == bool(needed.beyond)


def test_a_selection_costs_what_was_measured() -> None:
    assert plan(SMALL).cores["engine"] == pytest.approx(2_500 * CPU_US["engine"] / 1e6)


def test_there_is_a_partition_for_every_joiner_and_a_model_for_every_learner() -> None:
    for demand in (SMALL, LARGE):
        needed = plan(demand)
        assert needed.partitions >= needed.replicas["joiner"]
        assert needed.replicas["learner"] <= demand.models


def test_the_values_are_ones_of_the_chart() -> None:
    found = yaml.safe_load(values(SMALL))
    assert set(found) == {"importer", "engine", "tracker", "joiner", "learner"}
    assert found["engine"]["replicas"] == plan(SMALL).replicas["engine"]


@pytest.mark.parametrize(("text", "number"), [("25k", 25_000), ("10M", 10_000_000), ("1.5G", 1_500_000_000), ("7", 7)])
def test_counts_are_written_as_people_write_them(text: str, number: int) -> None:
    assert count(text) == number


@pytest.mark.parametrize("text", ["", "ten", "-5", "0", "1e40", "nan", "5kk"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a number|could not convert"):
        count(text)


ROOT = Path(__file__).parents[3]


def test_it_counts_with_the_figures_that_were_measured() -> None:
    page = (ROOT / "benchmarks" / "services.md").read_text()
    measured = re.findall(r"^\| (\w+) \| (\d+) \|", page, re.MULTILINE)
    assert {name: float(us) for name, us in measured} == CPU_US


def test_the_sizes_in_the_manual_are_worked_out_of_them() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for users, impressions, peak, models in ((1, 5, 2.5, 2), (10, 50, 25, 4), (100, 500, 250, 10)):
        needed = plan(Demand(users * 1_000_000, impressions * 1_000_000, round(peak * 1000), models))
        row = (
            f"| {users} M, {impressions} M, {peak:g} k/s, {models} models | {sum(needed.cores.values()):,.1f} "
            f"| {sum(needed.replicas.values()):,} | {needed.redis_gib:,.1f} GiB | {needed.kafka_gib_a_day:,.1f} GiB |"
        )
        assert row in page
