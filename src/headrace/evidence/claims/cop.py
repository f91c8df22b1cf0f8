"""System 88, Concise and Organized Perception: only what a question needs, in the order of inference, asked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from headrace.evidence.asking import Asked, ask, gain, share, signed
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.horn import Atom, organised, read_query, read_statement
from headrace.reason.intervals import bootstrap
from headrace.reason.tasks.worlds import World, world
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError

ROW = system(88)
KEEPS, BEATS, ORACLE = ROW.clauses
MODEL = "qwen2.5-coder-0.5b"
DEPTHS = (1, 2, 3, 4)
RIVALS = {"chain of thought": "single", "stepwise selection": "stepwise_selection(rounds=2)"}
KEPT, CUT = 0.99, 0.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """`worlds` a depth for the exact clauses, `asked` of the model in all."""

    worlds: int
    asked: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(25, 0), "full": Sizes(500, 16)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    made = [world(seed, depth) for depth in DEPTHS for seed in range(sizes.worlds)]
    keeps, numbers = perceived(made)
    shallow, _ = perceived(made, depth=1)
    null_run = mutant_run("Mutant: perception that looks one rule deep", [shallow])
    beats, interval = left_open(BEATS, NOT_IN_QUICK), None
    if sizes.asked:
        beats, interval, more = measured(sizes.asked)
        numbers |= more
    return Evidence(CLAIM.id, (keeps, beats, proved(made)), null_run, numbers, interval, "", size)


def perceived(made: Sequence[World], depth: int = 32) -> tuple[Clause, dict[str, float | int | str | list[float]]]:
    """Over worlds with a proof: how much of all gold proofs is kept. Over these: the share of words that is cut."""
    gold = kept = 0
    cuts: list[float] = []
    for one in made:
        chosen = organised(one.rules.premises, one.rules.query, depth)
        whole, rest = (sum(len(text.split()) for text in texts) for texts in _texts(one, chosen))
        if one.proof is not None:
            gold += len(one.proof)
            kept += len(set(one.proof) & set(chosen))
            cuts.append(1 - rest / whole)
    low, high = bootstrap(cuts)
    figure = (
        f"{kept} of {gold} gold-proof statements kept in {len(cuts)} worlds with a proof; words cut by "
        f"{100 * fmean(cuts):.1f} % [{100 * low:.1f}, {100 * high:.1f}], at least {100 * min(cuts):.0f} %"
    )
    clause = judged(KEEPS, kept >= KEPT * gold and low >= CUT, figure)
    return clause, {"worlds": len(made), "kept": kept / gold, "cut": fmean(cuts)}


def _texts(one: World, chosen: Sequence[int]) -> tuple[Sequence[str], list[str]]:
    return one.rules.premises, [one.rules.premises[index] for index in chosen]


def proved(made: Sequence[World]) -> Clause:
    """The prover against a second one that argues backwards, and its proofs against themselves."""
    differ = sum((one.proof is not None) != _holds(one.rules.premises, one.rules.query) for one in made)
    proofs = [one for one in made if one.proof is not None]
    loose = sum(not _minimal(one) for one in proofs)
    labels = sum(one.posed.gold == "true" for one in made)
    figure = (
        f"{differ} of {len(made)} worlds differ from a second prover; {loose} of {len(proofs)} proofs are not enough "
        f"or have a statement too many; {labels} queries derivable"
    )
    return judged(ORACLE, not differ and not loose, figure)


def _minimal(one: World) -> bool:
    assert one.proof is not None
    texts = [one.rules.premises[index] for index in one.proof]
    shorter = ([text for text in texts if text != left_out] for left_out in texts)
    return _holds(texts, one.rules.query) and not any(_holds(rest, one.rules.query) for rest in shorter)


def _holds(premises: Sequence[str], query: str) -> bool:
    """Backward, depth first, a goal never inside itself: another way to the same truth as `prove`."""
    known = [statement for text in premises if (statement := read_statement(text))]

    def holds(goal: Atom, above: frozenset[Atom]) -> bool:
        if goal in above:
            return False
        ways = [needed for statement in known if (needed := statement.for_goal(goal)) is not None]
        return any(all(holds(atom, above | {goal}) for atom in needed) for needed in ways)

    return holds(read_query(query), frozenset())


def measured(count: int) -> tuple[Clause, tuple[float, float] | None, dict[str, float | int | str | list[float]]]:
    """Greedy answers to the same worlds by perception, chain of thought and stepwise selection."""
    posed = [world(1000 + seed, 1 + seed % 3).posed for seed in range(count)]
    try:
        with Stage.named(MODEL, 512, threads=2) as stage, stage.engine(prefix_cache=True) as engine:
            ours = ask(engine, posed, "cop", temperature=0)
            theirs = {name: ask(engine, posed, how, temperature=0) for name, how in RIVALS.items()}
    except HeadraceError as error:
        return left_open(BEATS, f"the model could not be loaded: {error}"), None, {}
    gains = {name: gain(ours, found) for name, found in theirs.items()}
    holds = all(low > 0 and _cheaper(ours, theirs[name]) for name, (_, (low, _)) in gains.items())
    rest = "; ".join(
        f"{name} {share(found)}, {_calls(found)} calls, ours over it {signed(gains[name])}"
        for name, found in theirs.items()
    )
    figure = f"{MODEL}, {count} worlds: perception {share(ours)}, {_calls(ours)} calls; {rest}"
    numbers: dict[str, float | int | str | list[float]] = {"cop_right": [float(asked.right) for asked in ours]}
    numbers |= {name: [float(asked.right) for asked in found] for name, found in theirs.items()}
    return judged(BEATS, holds, figure, "effect"), gains["chain of thought"][1], numbers


def _cheaper(ours: Sequence[Asked], theirs: Sequence[Asked]) -> bool:
    """No more calls, and fewer tokens."""
    fewer = sum(asked.tokens for asked in ours) < sum(asked.tokens for asked in theirs)
    return fewer and sum(asked.calls for asked in ours) <= sum(asked.calls for asked in theirs)


def _calls(found: Sequence[Asked]) -> str:
    return f"{fmean(asked.calls for asked in found):.1f}"


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Backward chaining keeps a question's gold proof and drops most of the context before one deduction.",
    "Chain of thought on the whole rule base, and selection of one statement after another by the model.",
    ("exact", "effect"),
    "Worlds of 1 to 4 rules among 20 distractors. Calls count as fewer where one is as many as chain of thought needs.",
    run,
)
