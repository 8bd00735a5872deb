"""Section ``retrieve`` of ``mesh.yaml``: what models of the engine propose beside the mappings, and how much each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import Field, model_validator

from banditmesh.runtime.section import Name, Section

MOST_RETRIEVED: Final = 1000


class Retrieved(Section):
    """One model, and its share."""

    share: int = Field(ge=1, le=MOST_RETRIEVED, description="Contents that it proposes to a user at most.")


class Retrieve(Section):
    """Models of the engine that propose out of all live contents of services, each its share. They are sources like
    the mappings: filters, features, score and draw are the same, and of a content that two propose the first one in
    this order gets it: mappings, popularity, newest. A variant's own section takes the place of the placement's."""

    from_: list[Name] | None = Field(
        None,
        alias="from",
        min_length=1,
        description="Whose contents: services; absent: those of the placement's `sources`, or all.",
    )
    popularity: Retrieved | None = Field(None, description="The contents of the placement that earn most.")
    newest: Retrieved | None = Field(
        None, description="The youngest contents, so that what nobody was shown yet gets its chance."
    )

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if not self.models():
            raise ValueError(f"names no model; there is: {', '.join(RETRIEVERS)}")
        return self

    def models(self) -> Mapping[str, Retrieved]:
        """What is said of each model that is named, by its name, in the order of precedence."""
        found: dict[str, Any] = {name: getattr(self, name) for name in RETRIEVERS}
        return {name: options for name, options in found.items() if options is not None}


RETRIEVERS: Final = tuple(name for name in Retrieve.model_fields if name != "from_")
"""Models that propose, by the order in which they take precedence."""
EVERYBODYS: Final = ("popularity", "newest")
"""Those that propose the same to everybody: they need no user and may stand in ``sources`` and ``fallback`` too."""
