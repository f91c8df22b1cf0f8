"""One audit's result: how well each attack tells members, what was extracted, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.privacy.attacks.recovery import Share
from headrace.privacy.audit.blind import LIMIT
from headrace.privacy.audit.membership import Attack
from headrace.privacy.statistics import Estimate

THRESHOLD = 0.1
"""Of a member's being told at 1 % FPR, and of a document's being extracted: ten times what chance tells."""


class Told(msgspec.Struct, frozen=True):
    """What one attack tells: its AUC and TPR at 1 % FPR over as many members and held-out documents."""

    attack: Attack
    auc: Share
    tpr: Share
    members: int
    held_out: int


class Losses(msgspec.Struct, frozen=True):
    """Mean losses in nats a token; those of the base are None where there is none."""

    members: float
    held_out: float
    base_members: float | None
    base_held_out: float | None


class Report(msgspec.Struct, frozen=True):
    """What was found. None stands where nothing was measured.

    `gain`: AUC of the loss ratio less that of the plain loss. `extracted`: share of members. `blind`: AUC of the
    texts alone.
    """

    audited: str
    told: tuple[Told, ...]
    gain: Estimate | None
    extracted: Estimate | None
    blind: Share
    losses: Losses
    threshold: float = THRESHOLD

    def by(self, attack: Attack) -> Told:
        """Raises KeyError for an attack that was not run."""
        return {one.attack: one for one in self.told}[attack]

    @property
    def strongest(self) -> Told:
        """The attack that tells most members."""
        return max(self.told, key=lambda one: (one.tpr.value, one.auc.value))

    @property
    def worst(self) -> float:
        """The largest share of members that an attack tells, or of documents that were extracted."""
        return max(self.strongest.tpr.value, self.extracted.value if self.extracted is not None else 0.0)

    @property
    def passed(self) -> bool:
        return self.worst <= self.threshold

    @property
    def comparable(self) -> bool:
        """Whether the texts alone do not tell the two sets apart, as far as so many show."""
        return self.blind.value < LIMIT or self.blind.contains_chance

    @property
    def verdict(self) -> str:
        """One sentence."""
        part = "extraction" if self.extracted and self.extracted.value == self.worst else self.strongest.attack
        how = "over" if not self.passed else "within"
        if not self.comparable:
            return f"{self.audited} is not judged: its documents can be told apart by their texts alone."
        return (
            f"{self.audited} {'passes' if self.passed else 'fails'}: {part} reaches {self.worst:.1%}, {how} the "
            f"threshold of {self.threshold:.1%}."
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, with the verdict."""
        held: dict[str, Any] = msgspec.to_builtins(self)
        return held | {"passed": self.passed, "comparable": self.comparable, "verdict": self.verdict}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Report:
        return msgspec.convert(value, cls)


def table(report: Report) -> list[Sequence[str]]:
    """A row for each attack: name, AUC, TPR at 1 % FPR, and of how many documents."""
    return [(one.attack, f"{one.auc:.3f}", f"{one.tpr:.3f}", f"{one.members} + {one.held_out}") for one in report.told]


def lines(report: Report) -> list[str]:
    """What stands below the table; the verdict comes last."""
    losses, found = report.losses, [f"Texts alone: AUC {report.blind:.3f}."]
    if not report.comparable:
        found.append(
            "The two sets differ of themselves, so that telling them apart shows no memory; give held-out documents"
            " of the same kind."
        )
    if report.extracted is not None:
        found.append(f"Endings found from what stands before them: {report.extracted:.3f}.")
    members, held_out = _change(losses.members, losses.base_members), _change(losses.held_out, losses.base_held_out)
    found.append(f"Loss in nats a token: members {members}, held-out {held_out}.")
    return [*found, report.verdict]


def _change(loss: float, before: float | None) -> str:
    return f"{loss:.3f}" if before is None else f"{loss:.3f} ({before:.3f} before training)"
