"""The filters and rules of a placement that have parameters: what ``mesh.yaml`` may say of them.

Here is what every service validates; what a filter or a rule does is the engine's alone
(``services/crs_engine/pipeline``), where a file and a line of the registry belong to each.
"""

from __future__ import annotations

from pydantic import Field

from banditmesh.runtime.section import Section


class Filters(Section):
    """What must not be shown to a user, whatever else is on the list. A filter that is not named is not there."""


class CapPerService(Section):
    """At most so many contents of one service on a list; the list may get shorter by it."""

    most: int = Field(ge=1, le=50, description="Contents of one service that a list may have.")


class Rules(Section):
    """What a list as a whole must be like. A rule that is not named is not there.

    Rules work inside the draw, so propensities stay exact.
    """

    cap_per_service: CapPerService | None = None
