"""System 88, Concise and Organized Perception: only what a question needs, in the order of inference, asked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from headrace.evidence.asking import Asked, ask, gain, share, signed
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.horn import Atom, organised, read_query, read_statement
from headrace.reason.intervals import bootstrap, paired_bootstrap
from headrace.reason.tasks.fixtures import fixture
from headrace.reason.tasks.posed import Posed
from headrace.reason.tasks.reader import questions
from headrace.reason.tasks.worlds import World, world
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError

ROW = system(88)
KEEPS, BEATS, ORACLE = ROW.clauses
READER, MODEL = "lm-t-reader", "qwen2.5-coder-0.5b"
DEPTHS = (1, 2, 3, 4)
READ = (1, 2)
"""Depths of the worlds that the reader is asked: those of its lessons."""
STEPWISE = "stepwise selection"
RIVALS = {"chain of thought": "single", STEPWISE: "stepwise_selection(rounds=2)"}
"""A plain attempt is a chain of thought: the question asks for what follows from what before the answer."""
KEPT, CUT = 0.99, 0.5


Gain = tuple[float, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """`worlds` a depth for the exact clauses, `read` a depth by the reader, `asked` of Qwen in all."""

    worlds: int
    read: int
    asked: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(25, 0, 0), "full": Sizes(500, 150, 16)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    made = [world(seed, depth) for depth in DEPTHS for seed in range(sizes.worlds)]
    keeps, numbers = perceived(made)
    shallow, _ = perceived(made, depth=1)
    null_run = mutant_run("Mutant: perception that looks one rule deep", [shallow])
    beats, interval = left_open(BEATS, NOT_IN_QUICK), None
    if sizes.read:
        beats, interval, more = measured(sizes)
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


# -- effect ----------------------------------------------------------------------------------------


def measured(
    sizes: Sizes,
) -> tuple[Clause, tuple[float, float] | None, dict[str, float | int | str | list[float]]]:
    """Judged on the model trained here, on worlds that it was not trained on; Qwen's figures stand beside its own."""
    held_out = [questions("worlds", sizes.read, ROW.number, "eval", depth) for depth in READ]
    try:
        judge = raced(READER, str(fixture(READER)), [posed for depth in held_out for posed in depth])
        beside = raced(MODEL, MODEL, [world(1000 + seed, 1 + seed % 3).posed for seed in range(sizes.asked)])
    except HeadraceError as error:
        return left_open(BEATS, f"a model could not be loaded: {error}"), None, {}
    numbers: dict[str, float | int | str | list[float]] = {}
    for race in (judge, beside):
        ways = {"perception": race.ours} | race.theirs
        numbers |= {f"{race.name} {way}": [float(asked.right) for asked in found] for way, found in ways.items()}
    null = "" if beside.more_right else "; there it shows no gain, and the clause is not judged by it"
    figure = f"{told(judge)}; beside it {told(beside)}{null}"
    interval = gain(judge.ours, judge.theirs["chain of thought"])[1]
    return judged(BEATS, judge.more_right and judge.cheaper, figure, "effect"), interval, numbers


@dataclass(frozen=True, slots=True)
class Race:
    """Greedy answers to the same worlds, ours and those of the RIVALS."""

    name: str
    posed: Sequence[Posed]
    ours: list[Asked]
    theirs: dict[str, list[Asked]]

    @property
    def more_right(self) -> bool:
        return all(gain(self.ours, found)[1][0] > 0 for found in self.theirs.values())

    @property
    def cheaper(self) -> bool:
        return all(_cheaper(self.ours, found) for found in self.theirs.values())


def raced(name: str, model: str, posed: Sequence[Posed]) -> Race:
    """Raises HeadraceError where the model cannot be loaded."""
    with Stage.named(model, 512, threads=1) as stage, stage.engine(prefix_cache=True) as engine:
        ours = ask(engine, posed, "cop", temperature=0)
        theirs = {rival: ask(engine, posed, how, temperature=0) for rival, how in RIVALS.items()}
    plain = theirs["chain of thought"]
    theirs[STEPWISE] = [needed(found, one.prompt) for found, one in zip(theirs[STEPWISE], plain, strict=True)]
    return Race(name, posed, ours, theirs)


def needed(stepwise: Asked, question: int) -> Asked:
    """Without the `question` of so many tokens, which is opened first and left behind once something is inferred."""
    if stepwise.calls <= 2:  # the choice of nothing, and the question itself
        return stepwise
    return replace(stepwise, prompt=stepwise.prompt - question, calls=stepwise.calls - 1)


def _cheaper(ours: Sequence[Asked], theirs: Sequence[Asked]) -> bool:
    """Fewer tokens, and fewer calls or, against one call, no more than that."""
    once = all(asked.calls == 1 for asked in (*ours, *theirs))
    return _saved(ours, theirs, _tokens)[1][0] > 0 and (once or _saved(ours, theirs, _calls)[1][0] > 0)


def _saved(ours: Sequence[Asked], theirs: Sequence[Asked], cost: Callable[[Asked], int]) -> Gain:
    return paired_bootstrap([cost(asked) for asked in theirs], [cost(asked) for asked in ours])


def _tokens(asked: Asked) -> int:
    return asked.tokens


def _calls(asked: Asked) -> int:
    return asked.calls


def told(race: Race) -> str:
    rivals = [
        f"{name} {_went(race, found)}; ours over it {signed(gain(race.ours, found))}, "
        f"saves {_interval(_saved(race.ours, found, _tokens))} tokens and "
        f"{_interval(_saved(race.ours, found, _calls))} calls"
        for name, found in race.theirs.items()
    ]
    return f"{race.name}, {len(race.posed)} worlds: perception {_went(race, race.ours)}; {'; '.join(rivals)}"


def _went(race: Race, found: Sequence[Asked]) -> str:
    derivable = [asked.right for asked, posed in zip(found, race.posed, strict=True) if posed.gold == "true"]
    drawn, calls = fmean(asked.drawn for asked in found), fmean(map(_calls, found))
    return f"{share(found)}, {drawn:.1f} of them drawn, {calls:.2f} calls, {fmean(derivable):.2f} where it follows"


def _interval(saved: Gain) -> str:
    mean, (low, high) = saved
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Backward chaining keeps a question's gold proof and drops most of the context before one deduction.",
    "Chain of thought on the whole rule base, and selection of one statement after another by the model.",
    ("exact", "effect"),
    "Worlds of 1 to 4 rules among 20 distractors; the reader's have 1 or 2 rules among 4, as in its lessons. Calls "
    "count as fewer where one is as many as chain of thought needs.",
    run,
)
