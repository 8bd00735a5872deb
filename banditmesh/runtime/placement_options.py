"""The filters and rules of a placement that have parameters: what ``mesh.yaml`` may say of them.

Here is what every service validates; what a filter or a rule does is the engine's alone
(``services/crs_engine/pipeline``), where a file and a line of the registry belong to each.
"""

from __future__ import annotations

from banditmesh.runtime.section import Section


class Filters(Section):
    """What must not be shown to a user, whatever else is on the list. A filter that is not named is not there."""


class Rules(Section):
    """What a list as a whole must be like. A rule that is not named is not there.

    Rules work inside the draw, so propensities stay exact.
    """
