"""The filters of a placement that have parameters: what ``mesh.yaml`` may say of them. Its rules: ``rule_options.py``.

Here is what every service validates; what a filter does is the engine's alone
(``services/crs_engine/pipeline/filters``), where a file and a line of the registry belong to each.
"""

from __future__ import annotations

from pydantic import Field

from banditmesh.runtime.section import Section
from banditmesh.runtime.user_record import MOST_A_DAY, SHOWN_DAYS


class FrequencyCap(Section):
    """A content that a user was shown often enough is not shown to that user, in this placement."""

    shown: int = Field(
        ge=1, le=MOST_A_DAY, description="How often a content may be shown to a user, in all placements."
    )
    days: int = Field(1, ge=1, le=SHOWN_DAYS, description="Within how many days (UTC), today included.")


class Filters(Section):
    """What must not be shown to a user, whatever else is on the list. A filter that is not named is not there."""

    frequency_cap: FrequencyCap | None = None
