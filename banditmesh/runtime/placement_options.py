"""The filters and rules of a placement that have parameters: what ``mesh.yaml`` may say of them.

Here is what every service validates; what a filter or a rule does is the engine's alone
(``services/crs_engine/pipeline``), where a file and a line of the registry belong to each.
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


class CapPerService(Section):
    """At most so many contents of one service on a list; the list may get shorter by it."""

    most: int = Field(ge=1, le=50, description="Contents of one service that a list may have.")


class Rules(Section):
    """What a list as a whole must be like. A rule that is not named is not there.

    Rules work inside the draw, so propensities stay exact.
    """

    cap_per_service: CapPerService | None = None
