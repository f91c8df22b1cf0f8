"""Claims by id, their results on disk, and the state that follows for each system."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from headrace.evidence import claims as claims_package
from headrace.evidence.machine import commit_of, describe_machine, today
from headrace.evidence.systems import GRADE_CHECK, State, System, load_systems
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError, InvalidRequest

_TOOLS = ("answered", "machine", "page", "registry", "scripted", "stage", "systems", "verdict")
SHARED = frozenset(f"headrace.evidence.{name}" for name in _TOOLS)
"""What most claims use and none is judged by."""
_IMPORTS = re.compile(r"^ *from (headrace\.evidence[\w.]*) import", re.MULTILINE)


@cache
def _claims() -> dict[str, Claim]:
    names = sorted(module.name for module in pkgutil.iter_modules(claims_package.__path__))
    found = (import_module(f"{claims_package.__name__}.{name}").CLAIM for name in names)
    return {claim.id: claim for claim in sorted(found, key=lambda claim: claim.system)}


def list_claims() -> list[Claim]:
    """Every claim, in order of its system's number. A module in `evidence/claims` with a `CLAIM` is one."""
    return list(_claims().values())


def find_claim(id: str) -> Claim:
    """By its id, or its system's id or number. Raises InvalidRequest for an unknown one and a planned system."""
    if id in _claims():
        return _claims()[id]
    row = next((row for row in load_systems() if id in (row.id, str(row.number))), None)
    if row is None:
        raise InvalidRequest(f"There is no claim {id!r}; choose one of {', '.join(_claims())}.", "claim")
    for claim in list_claims():
        if claim.system == row.number:
            return claim
    known = ", ".join(_claims())
    raise InvalidRequest(
        f"System {row.number}, {row.id}, is planned and has no claim to run yet; choose one of {known}.", "claim"
    )


def run_claim(id: str, size: Size = "quick") -> Evidence:
    """Runs a claim here and now; `save_result` keeps what it found. Raises InvalidRequest for an unknown id."""
    claim, commit = find_claim(id), commit_of(project_root())  # the code may change during a long run
    code = code_of(claim)
    return replace(claim.run(size), machine=describe_machine(), commit=commit, code=code, date=today())


def code_of(claim: Claim) -> str:
    """A digest of the claim's module and of what it imports of `headrace.evidence`, directly or not, but `SHARED`."""
    waiting, found = [claim.run.__module__], dict[str, bytes]()
    while waiting:
        name = waiting.pop()
        spec = find_spec(name)
        if name in found or name in SHARED or spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin).read_bytes()
        waiting += _IMPORTS.findall(found[name].decode())
    return sha256(b"".join(name.encode() + found[name] for name in sorted(found))).hexdigest()[:16]


def project_root() -> Path:
    """The checkout this package lies in, else the current folder: where results and pages are kept."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file():
            return folder
    return Path.cwd()


def results_folder() -> Path:
    return project_root() / "results" / "evidence"


def save_result(evidence: Evidence, folder: Path | None = None) -> Path:
    """Writes `<claim>.json`, replacing an older result; returns its path."""
    path = (folder or results_folder()) / f"{evidence.claim}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(asdict(evidence), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(path)
    return path


def load_results(folder: Path | None = None) -> dict[str, Evidence]:
    """Stored results by claim id; an empty folder gives none. Raises HeadraceError for a damaged file."""
    found = {}
    for path in sorted((folder or results_folder()).glob("*.json")):
        try:
            found[path.stem] = _read(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError) as error:
            raise HeadraceError(f"{path} is damaged ({error}); run `headrace evidence run {path.stem}`.") from error
    return found


def _read(raw: dict) -> Evidence:
    clauses = tuple(Clause(**clause) for clause in raw.pop("clauses"))
    null_run, interval = Clause(**raw.pop("null_run")), raw.pop("interval")
    return Evidence(clauses=clauses, null_run=null_run, interval=tuple(interval) if interval else None, **raw)


def derive_state(system: System, evidence: Evidence | None) -> State:
    """The state that a system's last result gives it.

    Grades are climbed in their listed order; the first with an open or failed clause ends the climb. A clause
    whose check is not among the listed grades counts for the highest of them. Nothing above `built` comes from
    a quick run, from other clauses than the row's, or while the mutant went unnoticed (`null_run` not passed).
    """
    if evidence is None:
        return system.state
    whole = tuple(clause.text for clause in evidence.clauses) == system.clauses
    if not whole or evidence.null_run.status != "passed" or evidence.size != "full":
        return "built"
    listed = [GRADE_CHECK[grade] for grade in system.grades]
    state: State = "built"
    for check in listed:
        mine = [c for c in evidence.clauses if (c.check if c.check in listed else listed[-1]) == check]
        if not mine or any(clause.status != "passed" for clause in mine):
            return state
        state = check
    return state


def states(systems: tuple[System, ...], results: Mapping[str, Evidence]) -> dict[int, State]:
    """The state of each system by number; one with a claim but no result yet is `built`."""
    claimed = {claim.system: claim.id for claim in list_claims()}
    found: dict[int, State] = {}
    for row in systems:
        evidence = results.get(claimed[row.number]) if row.number in claimed else None
        found[row.number] = "built" if row.number in claimed and evidence is None else derive_state(row, evidence)
    return found
