"""Section ``archive`` of ``mesh.yaml``, and ``decisions`` of a placement: what is kept of what was learned from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from banditmesh.bandits.durations import Positive
from banditmesh.runtime.section import Section, Share


class Archive(Section):
    """Examples as Parquet files in the store, each once: ``docs/archive.md``."""

    enabled: bool = Field(True, description="Whether the learners write it.")
    flush_every: Positive = Field(
        300.0,
        description="How long an example waits at most before it is in a file. Rows beyond 96 MiB of memory are "
        "written before their time.",
    )
    keep: Positive | None = Field(
        None,
        description="`banditmesh archive expire` deletes hours that are older; absent: it deletes nothing.",
    )
    user_ids: Literal["plain", "keyed"] = Field(
        "plain",
        description="keyed: a hash stands for each user, made with the key that BANDITMESH_ARCHIVE_KEY of the learners "
        "has.",
    )


class Decisions(Section):
    """Decisions with all their candidates, for policies to be judged on."""

    sample: Share = Field(
        0.0,
        description="Which share of the decisions is archived, such as 0.01; best effort, and never at the cost of an "
        "answer.",
    )
