"""The rules of a placement: what ``mesh.yaml`` may say of lists as a whole. Which of them cannot hold together:
:mod:`banditmesh.runtime.rule_checks`.

Here is what every service validates; what a rule does is the engine's alone (``services/crs_engine/pipeline/rules``),
where a file and a line of the registry belong to each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from banditmesh.bandits.durations import Positive
from banditmesh.bandits.names import FieldName, PrintedText
from banditmesh.lengths import MAX_COUNT
from banditmesh.runtime.section import Section
from banditmesh.runtime.user_record import MOST_A_DAY, SHOWN_DAYS
from banditmesh.runtime.validation import problems
from banditmesh.runtime.wrong_keys import WrongKeys

MOST_RULES: Final = 50
MOST_MOVED: Final = 1e6
"""Units of the reward: scores are single floats, and stay finite and apart."""
_HOURS: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-4]):([0-5]\d)")
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _text(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("YAML reads NO, ON, YES as true or false; write it in quotes, 'NO'")
    return value


Text = Annotated[PrintedText, BeforeValidator(_text)]
AttributeName = Annotated[FieldName, BeforeValidator(_text)]


class Which(Section):
    """Which contents a rule is about: those that fit every key that is given."""

    service: str | None = Field(None, description="Contents of this service.")
    attribute: AttributeName | None = Field(None, description="Contents that have one of `values` in this attribute.")
    values: list[Text] = Field(default=[], description="Of `attribute`; a number is written as the text of it, '2024'.")
    content: str | None = Field(None, description="This content alone: service/content_id.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.service is None and self.attribute is None and self.content is None:
            raise ValueError("is about no content: give service, attribute and values, or content")
        if (self.attribute is None) != (not self.values):
            raise ValueError("attribute and values belong together: {attribute: label, values: [sponsored]}")
        if self.content is not None and "/" not in self.content:
            raise ValueError(f"content: {self.content!r} is no service/content_id")
        return self

    @property
    def owner(self) -> str:
        """The service that all of them are of; empty: they may be of several."""
        return self.service or (self.content or "").split("/", 1)[0]

    def has_all(self, others: Which) -> bool:
        """Whether all contents that others are about are certainly among these."""
        of_service = self.content is None and self.attribute is None and self.service == others.owner
        return of_service or self == others

    def words(self) -> str:
        """For explanations: ``contents with label=sponsored``."""
        parts = [f"of {self.service}"] if self.service else []
        parts += [f"with {self.attribute}={'|'.join(self.values)}"] if self.attribute else []
        return self.content if self.content is not None and not parts else " ".join(["contents", *parts])


class CapPerService(Section):
    """At most so many contents of one service on a list; the list may get shorter by it."""

    most: int = Field(ge=1, le=MAX_COUNT, description="Contents of one service that a list may have.")


class CapPerAttribute(Section):
    """At most so many contents of one value of an attribute on a list; the list may get shorter by it.

    Of several values each counts; a content without the attribute is not counted.
    """

    attribute: AttributeName = Field(description="Of the contents, such as genre.")
    most: int = Field(ge=1, le=MAX_COUNT, description="Contents of one value that a list may have.")


class Quota(Section):
    """At least so many of certain contents among the first positions, as far as there are candidates.

    Gives way where no candidate fits: a position never stays empty for it. A list that is shorter than `first` owes its
    share of it, rounded down.
    """

    of: Which
    at_least: int = Field(ge=1, le=MAX_COUNT, description="How many of them.")
    first: int = Field(ge=1, le=MAX_COUNT, description="Among so many positions, from the top.")

    def owed(self, count: int) -> int:
        """How many a list of ``count`` positions must have."""
        return self.at_least if count >= self.first else self.at_least * count // self.first


class Pin(Section):
    """Certain contents stand at a position, and are kept for it, if one of them is among the candidates.

    A pin proposes nothing: the content must come from a source. It gives way where no candidate fits.
    """

    of: Which
    position: int = Field(ge=0, lt=MAX_COUNT, description="From 0, the top of the list.")


class _Shift(Section):
    of: Which
    by: float | None = Field(
        None,
        gt=0,
        le=MOST_MOVED,
        allow_inf_nan=False,
        description="How far the score is moved, in units of the reward.",
    )
    share: float | None = Field(
        None,
        gt=0,
        le=100,
        description="How far the score is moved, as a share of its absolute value; for scores whose unit is no reward.",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.by is None) == (self.share is None):
            raise ValueError("exactly one of by and share is needed: {of: {service: tv}, by: 0.1}")
        return self


class Boost(_Shift):
    """Raises the scores of certain contents before the exploration looks at them; several boosts add up."""


class Bury(_Shift):
    """Lowers the scores of certain contents before the exploration looks at them."""


class Diversity(Section):
    """Maximal marginal relevance: a score is lowered by how much the content resembles what stands on the list.

    score - penalty · (the greatest similarity to a content that is on the list already).
    """

    penalty: float = Field(
        gt=0,
        le=MOST_MOVED,
        allow_inf_nan=False,
        description="What full likeness costs, in units of the reward: (1 - lambda) / lambda of the paper's lambda.",
    )
    attribute: AttributeName | None = Field(
        None,
        description="Two contents are as alike as the values that they share are of all that either has (Jaccard).",
    )
    vectors: bool = Field(
        False,
        description="Two contents are as alike as the cosine of their vectors says, below 0 as 0; needs `vectors`.",
    )

    @model_validator(mode="after")
    def _one_likeness(self) -> Self:
        if (self.attribute is not None) == self.vectors:
            raise ValueError("exactly one of attribute and `vectors: true` says what alike means")
        return self


class Spread(Section):
    """Contents that share a value of an attribute stand apart; gives way where no other candidate is left."""

    attribute: AttributeName = Field(description="Of the contents, such as genre.")
    apart: int = Field(2, ge=2, le=MAX_COUNT, description="2: not side by side; 3: two others between them.")


def _weekdays(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Blackout(Section):
    """Certain contents are not shown at certain hours, by the user's own clock."""

    of: Which | None = Field(None, description="Which contents; absent: all, so the slot stays empty.")
    hours: str = Field(description="From when to when, such as 22:00-06:00; the end is not part of it.")
    weekdays: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], BeforeValidator(_weekdays)] = (
        Field(default=list(WEEKDAYS), min_length=1, description="On which days; the hours after midnight are the next.")
    )
    time_zone: str | None = Field(
        None,
        description="Such as Asia/Tokyo; absent: `time_zone` of the request's context, else of the user's profile, else"
        " of the placement's features.",
    )

    @model_validator(mode="after")
    def _times_are_sound(self) -> Self:
        begin, end = self.minutes
        if begin == end % (24 * 60) and end != 24 * 60:
            raise ValueError(f"hours: {self.hours!r} begins when it ends; for the whole day write 00:00-24:00")
        if self.time_zone is not None:
            try:
                ZoneInfo(self.time_zone)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(f"time_zone: no time zone is called {self.time_zone!r}") from error
        return self

    @property
    def minutes(self) -> tuple[int, int]:
        """When it begins and when it ends, in minutes of the day.

        Raises ValueError.
        """
        match = _HOURS.fullmatch(self.hours.strip())
        if match is None or (match[3] == "24" and match[4] != "00"):
            raise ValueError(f"hours: {self.hours!r} is no span of hours; write it like 22:00-06:00")
        return int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])


def _upper(values: list[str]) -> list[str]:
    return [each.upper() for each in values]


Countries = Annotated[list[Text], AfterValidator(_upper)]


class Country(Section):
    """Contents are shown in certain countries only: `country` of the request's context, else of the user's profile."""

    of: Which | None = Field(None, description="Which contents `only` and `never` are about; absent: all.")
    only: Countries = Field(default=[], description="Where they are shown, and nowhere else.")
    never: Countries = Field(default=[], description="Where they are not shown.")
    attribute: AttributeName | None = Field(
        None, description="The attribute that lists where a content is shown; a content without it is shown everywhere."
    )
    unknown: Literal["hide", "show"] = Field("hide", description="What is done where the user's country is not known.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.only or self.never or self.attribute):
            raise ValueError("says no country: give only, never, or the attribute that lists the countries")
        both = sorted({*self.only} & {*self.never})
        if both:
            raise ValueError(f"{both[0]!r} is in only and in never")
        return self


class FrequencyCap(Section):
    """What a user was shown often enough is not shown to that user: a content, a service, a campaign."""

    per: AttributeName = Field(
        "content",
        description="What is counted: content, service, or an attribute of the contents such as campaign, by value.",
    )
    shown: int = Field(ge=1, le=MOST_A_DAY, description="How often it may be shown to a user, in all placements.")
    days: int = Field(1, ge=1, le=SHOWN_DAYS, description="Within how many days (UTC), today included.")
    of: Which | None = Field(None, description="Only these contents are held back; absent: all.")


class FreshnessFloor(Section):
    """Contents must not be older than so long; or so many of the first ones must not.

    Their age is by the attribute `published_at`; without one, since the engine first read them.
    """

    younger_than: Positive
    of: Which | None = Field(None, description="Only these contents have to be young; absent: all.")
    at_least: int | None = Field(
        None, ge=1, le=MAX_COUNT, description="So many young ones, as a quota; absent: all, older ones are barred."
    )
    first: int | None = Field(None, ge=1, le=MAX_COUNT, description="Among so many positions; with `at_least`.")

    @model_validator(mode="after")
    def _floor_or_bar(self) -> Self:
        if (self.at_least is None) != (self.first is None):
            raise ValueError("at_least and first belong together: {younger_than: 2d, at_least: 2, first: 5}")
        return self

    def owed(self, count: int) -> int:
        """How many young ones a list of ``count`` positions must have; 0: it is no quota."""
        if self.at_least is None or self.first is None:
            return 0
        return self.at_least if count >= self.first else self.at_least * count // self.first


class Rule(Section):
    """A rule with its parameters: exactly one of these. The order of the list is the order of the rules.

    Rules work inside the draw, so propensities stay exact. Of rules that give way, an earlier one goes before a later.
    """

    cap_per_service: CapPerService | None = None
    cap_per_attribute: CapPerAttribute | None = None
    quota: Quota | None = None
    pin: Pin | None = None
    boost: Boost | None = None
    bury: Bury | None = None
    diversity: Diversity | None = None
    spread: Spread | None = None
    blackout: Blackout | None = None
    country: Country | None = None
    frequency_cap: FrequencyCap | None = None
    freshness_floor: FreshnessFloor | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"names {len(named)} rules ({', '.join(named) or 'none'}); exactly one is needed")
        return self

    @property
    def kind(self) -> str:
        """Its name."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def params(self) -> Any:
        """Its parameters."""
        return getattr(self, self.kind)


def _listed(value: object) -> object:
    """Read ``rules: {cap_per_service: …, pin: …}`` as a list of these rules, which keep their names in messages."""
    if not isinstance(value, dict):
        return value
    found, wrong = [], {}
    for name, params in value.items():
        try:
            found.append(Rule.model_validate({name: params}))
        except ValidationError as error:
            for line in problems(error, Rule):
                path, _, text = line.partition(": ")
                wrong[path] = text
    if wrong:
        raise WrongKeys(wrong)
    return found


Rules = Annotated[list[Rule], BeforeValidator(_listed), Field(max_length=MOST_RULES)]


def names(rules: Sequence[Rule]) -> list[str]:
    """What explanations and metrics call the rules: by their kind; the second one of a kind is ``boost_2``."""
    kinds = [rule.kind for rule in rules]
    earlier = [kinds[:at].count(kind) for at, kind in enumerate(kinds)]
    return [f"{kind}_{before + 1}" if before else kind for kind, before in zip(kinds, earlier, strict=True)]


def attributes(rules: Sequence[Rule]) -> set[str]:
    """The attributes of contents that the rules look at."""
    params = [rule.params for rule in rules]
    about = [each.of for each in params if getattr(each, "of", None) is not None]
    named = {getattr(each, "attribute", None) for each in (*params, *about)}
    return {each for each in named if each is not None} | (capped(rules) - {"service"})


def capped(rules: Sequence[Rule]) -> set[str]:
    """What `frequency_cap` rules count beside contents: ``service`` and names of attributes."""
    return {rule.frequency_cap.per for rule in rules if rule.frequency_cap is not None} - {"content"}
