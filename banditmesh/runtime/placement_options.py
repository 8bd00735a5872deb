"""The filters of a placement that have parameters: what ``mesh.yaml`` may say of them. Its rules: ``rule_options.py``.

Here is what every service validates; what a filter does is the engine's alone
(``services/crs_engine/pipeline/filters``), where a file and a line of the registry belong to each.
"""

from __future__ import annotations

from pydantic import Field

from banditmesh.bandits.durations import Duration, Positive
from banditmesh.runtime.section import Section
from banditmesh.runtime.user_record import MOST_A_DAY, SHOWN_DAYS


class FrequencyCap(Section):
    """A content that a user was shown often enough is not shown to that user, in this placement."""

    shown: int = Field(
        ge=1, le=MOST_A_DAY, description="How often a content may be shown to a user, in all placements."
    )
    days: int = Field(1, ge=1, le=SHOWN_DAYS, description="Within how many days (UTC), today included.")


class Cache(Section):
    """Scored candidates of a user are kept in Redis for a while, so that they need not be found and scored again.

    An entry holds while the user has done no target action, none of its contents went away, and the model is the same.
    """

    max_age: Positive = Field(300.0, description="How old an entry may be.")
    model_slack: Duration = Field(
        0.0, description="Entries of a model that was published at most so much before (or after) the present one hold."
    )
    contents: int = Field(100, ge=1, le=1000, description="Candidates kept, the best ones; 18 bytes each in Redis.")


class Filters(Section):
    """What must not be shown to a user, whatever else is on the list. A filter that is not named is not there."""

    frequency_cap: FrequencyCap | None = None
