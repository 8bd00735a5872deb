"""What was done and what came of it, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from banditmesh.torture.oracle import KINDS, Finding, count
from banditmesh.torture.scene import Chronicle

SHOWN_FINDINGS: Final = 100
_COLUMNS: Final = (
    *("round", "kind", "servers", "s", "impressions", "examples", "reactions", "late", "kills"),
    *("selects", "empty", "not acknowledged", "found"),
)


@dataclass
class RoundResult:
    """What a round was, and what the oracle says of it."""

    name: str
    what: str
    number: int
    shape: str
    seconds: float = 0.0
    impressions: int = 0
    examples: int = 0
    reactions: int = 0
    late: int = 0
    copies: int = 0
    dead_letters: int = 0
    selected: int = 0
    empty: int = 0
    given_up: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    origins: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    crashes: list[str] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    skipped: str = ""
    """Why it was not run; empty: it was."""
    learned: dict[str, int] = field(default_factory=dict)
    """Examples in each model, where they were compared with undisturbed learning after the round."""


@dataclass
class Report:
    """A whole run."""

    seed: int
    minutes: float
    chronicle: Chronicle = field(default_factory=Chronicle)
    rounds: list[RoundResult] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    broke: str = ""
    """What the torture itself could not go on with; empty: nothing."""

    @property
    def findings(self) -> list[Finding]:
        """Of all rounds."""
        return [finding for each in self.rounds for finding in each.findings]

    @property
    def good(self) -> bool:
        """Nothing was found, and all that was asked for was done."""
        return not (self.findings or self.interrupted or self.broke)

    @property
    def impressions(self) -> int:
        """Impressions that were judged."""
        return sum(each.impressions for each in self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "seconds": round(self.seconds, 1),
            "began": _time(self.chronicle.began),
            "good": self.good,
            "interrupted": self.interrupted,
            "broke": self.broke,
            "kills": self.chronicle.kills,
            "found": count(self.findings),
            "rounds": [asdict(each) for each in self.rounds],
            "faults": [asdict(each) for each in self.chronicle.happened],
        }

    def markdown(self) -> str:
        """For people."""
        return "\n".join(self._lines()) + "\n"

    def write(self, path: Path) -> None:
        """Write Markdown there and JSON beside it, or JSON alone where the name ends so."""
        if path.suffix == ".json":
            path.write_text(json.dumps(self.as_dict(), indent=1))
            return
        path.write_text(self.markdown())
        path.with_suffix(".json").write_text(json.dumps(self.as_dict(), indent=1))

    def _lines(self) -> Iterator[str]:
        verdict = "nothing was lost, doubled or wrong" if self.good else "NOT GOOD"
        yield f"# banditmesh torture: {verdict}"
        yield ""
        yield (
            f"Seed {self.seed}, {self.seconds / 60:.1f} minutes, {self.chronicle.kills} SIGKILLs, "
            f"{self.impressions:,} impressions, {len(self.chronicle.happened)} entries in the chronicle."
        )
        if self.interrupted:
            yield "It was interrupted; this is what was done until then."
        if self.broke:
            yield f"It could not go on: {self.broke}"
        yield ""
        yield "| found | |"
        yield "|---|---|"
        for kind, number in count(self.findings).items():
            yield f"| {kind} | {number} |"
        yield ""
        yield from self._rounds()
        yield from self._found()
        yield from self._happened()

    def _rounds(self) -> Iterator[str]:
        yield "## Rounds"
        yield ""
        yield f"| {' | '.join(_COLUMNS)} |"
        yield "|---" * len(_COLUMNS) + "|"
        for each in self.rounds:
            if each.skipped:
                yield f"| {each.name} | {each.number} | {each.shape} | | | | | | | | | | not run: {each.skipped} |"
                continue
            yield (
                f"| {each.name} | {each.number or '1–10'} | {each.shape} | {each.seconds:.0f} | {each.impressions} "
                f"| {each.examples} | {each.reactions} | {each.late} | {each.kills} | {each.selected} | {each.empty} "
                f"| {each.given_up} | {len(each.findings)} |"
            )
        yield ""
        for each in self.rounds:
            if each.skipped:
                continue
            yield f"**{each.name}.** {each.what}"
            for declared in each.declared:
                yield f"- declared: {declared}"
            if each.refused:
                refused = ", ".join(f"{number} × {why}" for why, number in each.refused.items())
                yield f"- refused events: {refused}"
            for crash in each.crashes:
                yield f"- ended by itself: {crash}"
            if each.learned:
                models = ", ".join(f"{name} {number:,}" for name, number in sorted(each.learned.items()))
                yield f"- learned, the same as undisturbed to 1e-9 unless found otherwise: {models}"
            yield ""

    def _found(self) -> Iterator[str]:
        findings = [(each.name, finding) for each in self.rounds for finding in each.findings]
        if not findings:
            return
        yield "## Found"
        yield ""
        for name, finding in findings[:SHOWN_FINDINGS]:
            yield f"- {name}: **{finding.kind}** {finding.what}: {finding.detail}"
        if len(findings) > SHOWN_FINDINGS:
            yield f"- and {len(findings) - SHOWN_FINDINGS} more"
        yield ""

    def _happened(self) -> Iterator[str]:
        yield "## Every fault, and when"
        yield ""
        for each in self.chronicle.happened:
            yield f"- {each.at_s:7.1f} s {_time(each.at)} {each.round}: {each.what}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")


def summary(findings: list[Finding]) -> str:
    """In a few words."""
    counted = Counter(each.kind for each in findings)
    return ", ".join(f"{counted[kind]} {kind}" for kind in KINDS if counted[kind]) or "nothing"
