"""Guardrails: when a variant is so much worse than the control that it must stop by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from banditmesh.experiments.report import MORE_IS_WORSE, Report


@dataclass(frozen=True)
class Breach:
    """A variant that must stop, and why.

    Attributes:
        margin: what the guardrail allows.
        worse_by: how much worse it is.
        at_least: and how much at least, by the confidence sequence: more than the margin.
    """

    variant: str
    metric: str
    margin: float
    worse_by: float
    at_least: float
    value: float
    control: float
    confidence: float

    @property
    def because(self) -> str:
        """In words."""
        return (
            f"{self.metric} is {self.value:.6g} where the control has {self.control:.6g}: worse by at least "
            f"{self.at_least:.3g} (with {self.confidence:.4g} confidence, at any time), and {self.margin:g} is allowed"
        )


def breaches(found: Report, margins: Mapping[str, float]) -> list[Breach]:
    """The variants that are surely worse than the control by more than a margin; one breach each, the first by name.

    The confidence sequence may be looked at at any time, so this may be asked as often as one likes: of variants that
    are no worse than a margin allows, a guardrail ever stops a share of 5 % at most.

    Args:
        margins: by metric, how much worse than the control (>= 0).
    """
    control = next(each for each in found.variants if each.name == found.control)
    stopped: dict[str, Breach] = {}
    for metric, margin in sorted(margins.items()):
        sign = 1.0 if metric in MORE_IS_WORSE else -1.0
        for variant in found.variants:
            figure = variant.figures.get(metric)
            if figure is None or variant.name in stopped or not figure.difference_range.known:
                continue
            at_least = min(sign * figure.difference_range.lower, sign * figure.difference_range.upper)
            if at_least > margin:
                stopped[variant.name] = Breach(
                    variant.name,
                    metric,
                    margin,
                    sign * figure.difference,
                    at_least,
                    figure.value,
                    control.figures[metric].value,
                    found.confidence,
                )
    return list(stopped.values())
