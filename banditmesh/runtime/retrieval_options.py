"""Section ``retrieve`` of ``mesh.yaml``: what models of the engine propose beside the mappings, and how much each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from banditmesh.bandits.durations import Positive, written
from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.registry import model_name, policy_params
from banditmesh.lengths import MAX_EMBEDDING
from banditmesh.retrieval.density import DensityParams
from banditmesh.retrieval.user_vector import token_dimensions
from banditmesh.runtime.section import Name, Section, each_once
from banditmesh.runtime.user_record import MOST_TASTE

Weight = Annotated[float, Field(ge=0, le=100)]

MOST_RETRIEVED: Final = 1000
ALS: Final = "als"
POPULARITY: Final = "popularity"


class Retrieved(Section):
    """One model, and its share."""

    share: int = Field(ge=1, le=MOST_RETRIEVED, description="Contents that it proposes to a user at most.")


class Popular(Retrieved):
    """The contents of the placement that earn most."""

    half_life: Positive | None = Field(
        None, description="Age at which an example counts half, as fast as contents fade; absent: 1d, as the fallback."
    )

    @property
    def params(self) -> dict[str, str]:
        """Of the policy `popularity`."""
        return {} if self.half_life is None else {"half_life": written(self.half_life)}

    @property
    def model_name(self) -> str:
        """Under which its snapshots are."""
        return model_name(POPULARITY, self.params)


class UserVector(Section):
    """How a user's vector is worked out of the contents that the user opened last."""

    clicks: int = Field(30, ge=1, le=MOST_TASTE, description="How many of the contents opened last.")
    recency: Positive = Field(7 * 86400.0, description="After so long a click weighs half.")
    target: Weight = Field(1.0, description="What a target action adds to a click's weight of 1.")
    dwell: Weight = Field(
        0.5, description="What a stay of 30 s adds, and each doubling of (1 + seconds / 30) once more."
    )
    inverse_popularity: Weight = Field(
        0.3,
        description="A click weighs (1 + the content's decayed clicks) to the minus this: what all open says little of "
        "one.",
    )


class Density(Retrieved):
    """The contents that users near this user click now: a rate, by decayed kernel sums that the learner updates."""

    half_life: Positive = Field(6 * 3600.0, description="After so long a click or an impression counts half.")
    bandwidth: float = Field(
        1.0,
        gt=0,
        le=10,
        description="How far near is: the kernel's deviation, between vectors of length 1. The smaller, the more "
        "features it takes for the same accuracy.",
    )
    features: int = Field(256, ge=16, le=1024, multiple_of=2, description="Of the random Fourier features.")
    smoothing: float = Field(
        10.0, gt=0, le=1e6, description="Impressions by which a content's rate is drawn to what is expected of it."
    )
    optimism: float = Field(
        0.5, ge=0, le=10, description="Deviations that are added to the rate where contents are chosen to be proposed."
    )
    user: UserVector = Field(default_factory=UserVector)
    publish_every: Positive = Field(
        2.0, description="How often the learner publishes what has changed; engines look half as often again."
    )
    full_every: Positive = Field(600.0, description="How often it publishes everything.")
    contents: int = Field(
        200_000, ge=1000, le=2_000_000, description="Contents that sums are kept of; those shown least make room."
    )
    coarse: int = Field(
        64,
        ge=8,
        le=1024,
        description="Directions in which all contents are compared before the best are looked at exactly; more cost "
        "time and miss less.",
    )

    def params(self, dimensions: int) -> DensityParams:
        """What the sums depend on. ``dimensions``: of contents' vectors."""
        return DensityParams(
            token_dimensions(dimensions), self.features, self.bandwidth, self.half_life, contents=self.contents
        )


class Taste(Retrieved):
    """What the user would like, by a fit of `als` on what all users did."""

    model: dict[str, Any] = Field(
        default={}, description="Parameters of `als`, where they are not the defaults: {factors: 32}; see its policy."
    )

    @model_validator(mode="after")
    def _is_a_model(self) -> Self:
        try:
            policy_params(ALS, self.model)
        except BanditError as error:
            raise ValueError(f"model: {error}") from error
        return self

    @property
    def model_name(self) -> str:
        """Under which its snapshots are."""
        return model_name(ALS, self.model)


class Vectors(Section):
    """Vectors of contents, for models that retrieve by likeness."""

    dimensions: int = Field(64, ge=2, le=MAX_EMBEDDING, description="Of every content's vector.")
    embedding: Literal["given", "text"] = Field(
        "given",
        description="given: a content has the vector that its Data Provider says, or none. text: a content without one "
        "gets one from title, body and attributes, by what `banditmesh embed fit` has put into the store.",
    )


class Retrieve(Section):
    """Models of the engine that propose out of all live contents of services, each its share. They are sources like
    the mappings: filters, features, score and draw are the same, and of a content that two propose the first one in
    this order gets it: mappings, density, als, popularity, newest; whoever looks at the user has more to say of it. A
    variant's own section takes the place of the placement's."""

    from_: Annotated[list[Name], AfterValidator(each_once)] | None = Field(
        None,
        alias="from",
        min_length=1,
        description="Whose contents: services; absent: those of the placement's `sources`, or all.",
    )
    density: Density | None = Field(
        None,
        description="What users near this user click now; needs `vectors`, and remembers the last clicks of users.",
    )
    als: Taste | None = Field(
        None,
        description="What the user would like by taste; needs `banditmesh als fit`, and remembers users' feedback.",
    )
    popularity: Popular | None = Field(None, description="The contents of the placement that earn most.")
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
