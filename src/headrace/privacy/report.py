"""The one report: what each profile costs, what each party sees under it, and what the best attack on it recovers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headrace.privacy.attacks.recovery import Recovery, Share
from headrace.spec.errors import HeadraceError, InvalidRequest

OPEN = "not measured"
MEASURED_HERE = "measured here and now"
ENTRY = "privacy_report"
"""A result file's list of lines: profile, slowdown, recovery {value, low, high, chance}, attack; beside it its date."""
PROFILES = ("plain", "veil", "split", "mpc")
SEES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "plain": {"server": "prompts and answers", "its logs and caches": "the same"},
        "veil": {
            "server": "ids under one fixed permutation, which ids are equal, lengths, times, logits' values; with the"
            " public weights everything",
            "its logs and caches": "ids under the permutation; frequent ones are read after a few thousand",
        },
        "split": {
            "server": "hidden states of every token, lengths, times",
            "its logs and caches": "what is kept of those states",
        },
        "mpc": {
            "each server": "random shares, lengths and times, as long as the servers follow the protocol and do not"
            " collude, and of semi2k's two the first forgets the triples it deals",
            "their logs and caches": "the same",
        },
    }
)


@dataclass(frozen=True, slots=True)
class Line:
    """One profile. `slowdown`: seconds a token over those of the plain model at equal weight types; None: not measured.

    `source`: where the figures are from. `sees`: party -> what it sees.
    """

    profile: str
    slowdown: float | None
    recovery: Share | None
    attack: str
    source: str

    @property
    def kind(self) -> str:
        return self.profile.partition(":")[0]

    @property
    def sees(self) -> Mapping[str, str]:
        return SEES[self.kind]


@dataclass(frozen=True, slots=True)
class Report:
    """`recoveries`: every attack that was run for the veil's line, whole."""

    model: str
    lines: tuple[Line, ...]
    recoveries: tuple[Recovery, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        lines = [asdict(line) | {"sees": dict(line.sees)} for line in self.lines]
        return {"model": self.model, "lines": lines, "attacks": [each.to_json() for each in self.recoveries]}

    def text(self) -> str:
        rows = [("profile", "slowdown", "best attack recovers", "attack", "from")]
        for line in self.lines:
            rows.append((line.profile, _slowdown(line), str(line.recovery or OPEN), line.attack or "–", line.source))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        sees = [f"{kind}: {_parties(SEES[kind])}" for kind in PROFILES if any(each.kind == kind for each in self.lines)]
        attacks = [str(each) for each in self.recoveries]
        return "\n".join([self.model, "", *table, "", "Who sees what", *sees, *([""] if attacks else []), *attacks, ""])

    def check(self, threshold: float) -> None:
        """Raises RecoveryOverThreshold where the veil's line lies over it.

        Raises InvalidRequest where nothing attacked it, or no key scored the attacks.
        """
        if not self.recoveries:
            raise InvalidRequest(
                "No attack was run, so nothing can be said of the threshold; give --public or --known.", "threshold"
            )
        for recovery in self.recoveries:
            recovery.check(threshold)


def _slowdown(line: Line) -> str:
    return OPEN if line.slowdown is None else f"{line.slowdown:.3g} x"


def _parties(sees: Mapping[str, str]) -> str:
    return "; ".join(f"{party} – {what}" for party, what in sees.items())


def plain_line() -> Line:
    """Nothing hides the text: by definition, not by measurement."""
    return Line("plain", 1.0, Share(1.0, 1.0, 1.0, 1.0), "reading", "by definition")


def veil_line(slowdown: float | None, recoveries: Sequence[Recovery]) -> Line:
    """The strongest attack's; types or mass, whatever it recovers more of."""
    if not recoveries:
        return Line("veil", slowdown, None, "", OPEN if slowdown is None else MEASURED_HERE)
    best = max(recoveries, key=lambda recovery: recovery.worst)
    scored = "" if best.scored_by == "key" else ", by its own confidence"
    return Line(
        "veil", slowdown, max(best.types, best.mass, key=lambda found: found.value), best.attack + scored, MEASURED_HERE
    )


def stored_lines(folder: Path | None) -> list[Line]:
    """Those of the result files in a folder, and an open line for each profile that none is about.

    Raises HeadraceError for a damaged file.
    """
    found = [line for path in sorted(folder.glob("*.json") if folder else ()) for line in _lines_of(path)]
    wanted = ("split", "mpc")
    opened = [Line(kind, None, None, "", OPEN) for kind in wanted if not any(each.kind == kind for each in found)]
    kept = [line for line in found if line.kind in wanted]
    return sorted([*kept, *opened], key=lambda line: (wanted.index(line.kind), line.profile))


def _lines_of(path: Path) -> list[Line]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        entries = stored.get(ENTRY, []) if isinstance(stored, dict) else []
        if not entries:
            return []
        source = ", ".join(str(part) for part in (path.name, stored.get("model"), stored["date"]) if part)
        return [_line_of(entry, source) for entry in entries]
    except (ValueError, KeyError, TypeError):
        raise HeadraceError(f"{path} is damaged; make it again with its benchmark.") from None


def _line_of(entry: Mapping[str, Any], source: str) -> Line:
    """Raises ValueError, KeyError, TypeError for what is no line, or holds figures that none can be."""
    shared, slowdown = None if entry["recovery"] is None else Share(**entry["recovery"]), entry["slowdown"]
    possible = shared is None or 0 <= shared.low <= shared.value <= shared.high <= 1
    if not possible or not (slowdown is None or 0 < slowdown < math.inf):
        raise ValueError(entry)
    return Line(str(entry["profile"]), slowdown, shared, str(entry["attack"]), source)


def results_folder() -> Path | None:
    """That of this checkout; None for an installed package, which has none."""
    folder = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
    return folder if folder.is_dir() else None
