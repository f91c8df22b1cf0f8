"""System 87, PUMA: a transformer on secret shares, with its exactness, its views and its price."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.evidence import secret
from headrace.evidence.secret import Agreement, Bound, Charged
from headrace.evidence.stage import FULL_MODEL
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open
from headrace.privacy.mpc.environment import make_worker, worker_python
from headrace.privacy.mpc.errors import WorkerUnavailable
from headrace.privacy.mpc.price import PROTOCOLS
from headrace.privacy.mpc.session import Kind, Session, Setup
from headrace.privacy.mpc.view import Finding
from headrace.spec.claim import Claim, Clause, Evidence, Size

ROW = system(87)
AGREES, BOUNDED, BLIND, PRICED, TIMED = ROW.clauses
MOST_ERROR, LEAST_AGREEMENT, MOST_BLOCK_ERROR = 1e-2, 0.99, 2e-2
MUTANT = "Mutant: shares that hold the number itself"
KINDS: tuple[Kind, ...] = ("aby3", "semi2k")
Numbers = dict[str, float | int | str | list[float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """`points` of each function's range; `counted`: operations in lockstep."""

    kinds: tuple[Kind, ...]
    tokens: int
    prompts: int
    points: int
    counted: tuple[str, ...]
    train: bool = False


FEW = ("multiply", "matmul", "choose")
SIZES: dict[Size, Sizes] = {
    "quick": Sizes(("aby3",), 8, 1, 128, FEW),
    "full": Sizes(KINDS, 64, 8, 2048, tuple(secret.cases(PROTOCOLS["aby3"], 1)), True),
}


def run(size: Size) -> Evidence:
    """Where SPU's environment is not there, or in a full run cannot be made, every clause stays open and says why."""
    try:
        python = make_worker(lambda line: print(line, file=sys.stderr)) if size == "full" else worker_python()
    except WorkerUnavailable as error:
        return _left_open(size, str(error))
    if python is None:
        return _left_open(size, "the environment of SPU is not here; a full run makes it")
    return measure(size, python)


def measure(size: Size, python: Path) -> Evidence:
    sizes = SIZES[size]
    with Session(python) as session:
        agreement, bounds, whole, numbers = check_numbers(session, sizes)
        blind, null_run = check_views(session, sizes)
        priced, more = check_costs(session, sizes, whole)
        timed, last = (left_open(TIMED, NOT_IN_QUICK), {}) if size == "quick" else check_time(session)
    clauses = (agreement, bounds, blind, priced, timed)
    return Evidence(CLAIM.id, clauses, null_run, numbers | more | last, None, "", size)


def _left_open(size: Size, why: str) -> Evidence:
    clauses = tuple(left_open(text, why, "exact") for text in ROW.clauses)
    return Evidence(CLAIM.id, clauses, Clause(MUTANT, "open", why), {}, None, "", size)


def check_numbers(session: Session, sizes: Sizes) -> tuple[Clause, Clause, list[Charged], Numbers]:
    """Logits of a trained model on shares and what they cost; each approximated function over its range."""
    subject, prompts, name = secret.trained(sizes.tokens, sizes.prompts, train=sizes.train)
    found: dict[Kind, Agreement] = {}
    charged: list[Charged] = []
    bounds: list[tuple[Kind, Bound]] = []
    for kind in sizes.kinds:
        session.open(Setup(kind))
        found[kind] = secret.compare_logits(session, subject, prompts)
        charged.append(secret.decoder_cost(kind, subject.shape, found[kind]))
        bounds += [(kind, bound) for bound in secret.check_bounds(session, sizes.points)]
    holds = all(one.error <= MOST_ERROR and one.agreeing >= LEAST_AGREEMENT * one.positions for one in found.values())
    figure = "; ".join(f"{kind} {_agreement(one)}" for kind, one in found.items())
    numbers: Numbers = {f"{kind} logit error": one.error for kind, one in found.items()}
    numbers |= {f"{kind} seconds a token": one.spent.seconds / one.positions for kind, one in found.items()}
    told = ", ".join(f"{kind} {bound}" for kind, bound in bounds)
    bounded = judged(BOUNDED, all(bound.holds for _, bound in bounds), told)
    return judged(AGREES, holds, f"{name}, {figure}"), bounded, charged, numbers


def _agreement(one: Agreement) -> str:
    return (
        f"{one.error:.1e} at most apart, top-1 {one.agreeing} of {one.positions}, "
        f"{one.spent.bytes / one.positions / 1e6:.2f} MB and {one.spent.seconds / one.positions:.2f} s a token"
    )


def check_views(session: Session, sizes: Sizes) -> tuple[Clause, Clause]:
    """Each party's view of two inputs, and of shares that are none."""
    sound = [finding for kind in sizes.kinds for finding in secret.check_views(session, Setup(kind))]
    leaky = {kind: secret.check_views(session, Setup(kind, leak=True)) for kind in sizes.kinds}
    dealt = "; semi2k's first party also deals the triples and is trusted to forget them" * ("semi2k" in sizes.kinds)
    clause = judged(BLIND, all(finding.sound for finding in sound), _findings(sound) + dealt)
    return clause, mutants_caught(leaky)


def mutants_caught(leaky: Mapping[Kind, Sequence[Finding]]) -> Clause:
    """Under every protocol, by at least one test of a view."""
    told = {kind: _findings([finding for finding in found if not finding.sound]) for kind, found in leaky.items()}
    figure = "; ".join(f"{kind} {findings or 'unnoticed'}" for kind, findings in told.items())
    return Clause(MUTANT, "passed" if all(told.values()) else "failed", figure)


def _findings(found: Sequence[Finding]) -> str:
    return ", ".join(f"{one.what} {one.deviations:+.1f} sd of {one.bytes} bytes" for one in found)


def check_costs(session: Session, sizes: Sizes, whole: list[Charged]) -> tuple[Clause, Numbers]:
    """Operations one by one with their rounds, and the decoder's bytes and messages as a whole."""
    charged = list(whole)
    for kind in sizes.kinds:
        session.open(Setup(kind, record=True, lockstep=True))
        charged += secret.check_costs(session, kind, sizes.counted)
    figure = "; ".join(f"{one.kind} {one.name} {_cost(one)}" for one in charged)
    return judged(PRICED, all(one.equal for one in charged), figure + fallen_away(charged)), secret.as_numbers(charged)


def _cost(one: Charged) -> str:
    found, wanted = one.measured, one.formula
    rounds = f"{found.rounds} rounds, " if wanted.rounds else ""
    figures = f"{rounds}{found.messages} messages, {found.bytes} bytes"
    return figures if found == wanted else f"{figures} (formula {wanted.rounds}, {wanted.messages}, {wanted.bytes})"


def fallen_away(charged: Sequence[Charged]) -> str:
    """Why operations that are equal to their formulas took fewer rounds."""
    fewer = any(one.equal and one.measured != one.formula for one in charged)
    return "; where rounds are fewer, a party was done early and sent what the next step needs" if fewer else ""


def check_time(session: Session) -> tuple[Clause, Numbers]:
    """SmolLM2 among three parties: one block against plain numbers, and a whole token where it fits."""
    found = secret.real_size(session, Setup("aby3"))
    fits = found.agrees and found.peak < secret.MOST_MEMORY
    holds = found.error <= MOST_BLOCK_ERROR and (fits or not found.whole)
    kind = f"{found.peak / 2**30:.1f} GiB at most, next token {'the same' if found.agrees else 'another'}"
    token = kind if found.whole else "extrapolated from one block, for the whole would not fit in 16 GiB"
    figure = (
        f"one block of 16 tokens {found.error:.1e} apart in {found.block_seconds:.0f} s; one token after 16 of "
        f"{FULL_MODEL}: {found.token_seconds:.0f} s, {found.spent.bytes / 1e6:.0f} MB, {token}"
    )
    numbers: Numbers = {"block error": found.error, "token seconds": found.token_seconds, "token peak": found.peak}
    return judged(TIMED, holds, figure, "effect"), numbers


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "A transformer on secret shares agrees with the plain one; what parties see looks like noise; its price is known.",
    "The same model in plain numbers.",
    ("exact", "effect"),
    "About 10 minutes for a full run, most of it one token of SmolLM2 among three parties on one machine.",
    run,
)
