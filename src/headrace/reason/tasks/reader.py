"""READER: questions with letters and worlds of rules, small enough that a model of a million parameters reads them.

The questions are those of `lettered`, `sets` and `worlds`. A chain of thought looks at one option after the other, up
to the one that is right, or says what follows from what:

    Which of these is a tool?      Bob is calm.
    A) pear                        If someone is calm then they are rich.
    B) saw                         Cara is rich.
    C) van                         … Is this true or false: Bob is rich. …
    D) tea
    The tool:                      Bob is rich.
    1) pear fruit                  Answer: True
    2) saw tool
    Answer: B

Every question belongs to one split, by the hash of what it asks: options in another order, other premises around
those that a query needs do not make another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Literal, TypeAlias, get_args

from headrace.reason.choices import Options
from headrace.reason.horn import Atom, RuleBase, organised, read_query, read_statement
from headrace.reason.task import Task
from headrace.reason.tasks import lettered, sets
from headrace.reason.tasks.arith import Split, split_of
from headrace.reason.tasks.posed import Posed
from headrace.reason.tasks.words import KIND_OF
from headrace.reason.tasks.worlds import world
from headrace.spec.errors import InvalidRequest
from headrace.spec.sampling import Stop

Family: TypeAlias = Literal["lettered", "odd", "deduction", "worlds"]
LETTERED = ("kind", "letters")
"""Those families of `lettered` that ask about words: what is true of a word is learned by heart."""
DEPTH, DISTRACTORS = 2, 4
"""Of a world, where nothing else is asked for."""
MOST_DEPTH, MOST_DISTRACTORS = 4, 16
ATTEMPT = {"lettered": 28, "odd": 8, "deduction": 8, "worlds": 40}
"""Tokens that no attempt reaches unless it goes astray."""
WORDING = 0
SEEDS = 48
"""Bits of the number by which a set or a world is drawn."""


def draw(rng: Random, family: Family, kind: str = "kind", depth: int = DEPTH, distractors: int = DISTRACTORS) -> Posed:
    """One random question of any split. `kind`: one of LETTERED. Raises InvalidRequest for settings out of range."""
    if family not in get_args(Family):
        raise InvalidRequest(f"Family {family!r} is unknown; give one of {', '.join(get_args(Family))}.", "family")
    if not 1 <= depth <= MOST_DEPTH:
        raise InvalidRequest(f"depth is {depth}; give 1 to {MOST_DEPTH}.", "depth")
    if not 0 <= distractors <= MOST_DISTRACTORS:
        raise InvalidRequest(f"distractors is {distractors}; give 0 to {MOST_DISTRACTORS}.", "distractors")
    if family == "lettered":
        return lettered.draw(rng, kind, tokens=ATTEMPT[family])
    seed = rng.getrandbits(SEEDS)
    if family == "worlds":
        return world(seed, depth, distractors, ATTEMPT[family]).posed
    posed = sets.odd_one_out(seed, WORDING) if family == "odd" else sets.deduction(seed, WORDING, taught=True)
    return replace(posed, task=replace(posed.task, ending=Stop(tokens=ATTEMPT[family])))


def questions(
    family: Family,
    count: int,
    seed: int = 0,
    split: Split = "eval",
    depth: int = DEPTH,
    distractors: int = DISTRACTORS,
) -> list[Posed]:
    """`count` distinct questions of one split, the same for the same arguments; the kinds of `lettered` in turn.

    Raises InvalidRequest for settings out of range, or where there are not so many questions.
    """
    rng = Random(f"reader {family} {depth} {distractors} {seed}")
    found: dict[str, Posed] = {}
    for _ in range(200 * count + 1000):
        if len(found) == count:
            return list(found.values())
        posed = draw(rng, family, LETTERED[len(found) % len(LETTERED)], depth, distractors)
        asked = asked_of(posed.task)
        if split_of(asked) == split:
            # Many worlds say nothing that helps: what they ask is the same, reading it is not.
            found.setdefault(posed.task.question if family == "worlds" else asked, posed)
    raise InvalidRequest(f"There are not {count} questions of {family} in split {split!r}; ask for fewer.", "count")


def asked_of(task: Task) -> str:
    """What a question asks, however it is put: its split is the hash of this."""
    rules: RuleBase | None = task.meta.get("rules")
    if rules is not None:
        return "\n".join([*sorted(_core(rules)), rules.query])
    asked: Options = task.meta["choices"]
    return "\n".join([asked.stem, *sorted(asked.options)])


def _core(rules: RuleBase) -> Sequence[str]:
    """The fewest premises that perception comes down to, applied again and again, before none is left.

    A world and what perception makes of it have the same core; only where that is nothing at all has it one of its own.
    """
    kept = rules.premises
    while len(fewer := organised(kept, rules.query)) not in (0, len(kept)):
        kept = tuple(kept[index] for index in fewer)
    return kept


# -- workings --------------------------------------------------------------------------------------


def chain(posed: Posed) -> str:
    """How a question of `lettered` is worked out: each option with what counts about it, up to the right one.

    Options have numbers there and words small letters, so that none can be read as an answer before there is one.
    """
    asked: Options = posed.task.meta["choices"]
    spelled = posed.family == "letters"
    sought = "word" if spelled else asked.stem.removeprefix("Which of these is a ").rstrip("?")
    looked_at = asked.options[: asked.letters.index(posed.gold) + 1]
    told = [f"{word[0].lower()} {word[-1]}" if spelled else KIND_OF[word] for word in looked_at]
    lines = [f"{number}) {word} {said}" for number, (word, said) in enumerate(zip(looked_at, told, strict=True), 1)]
    return "\n".join([f"The {sought}:", *lines])


def inference(premises: Sequence[str], query: str) -> tuple[int, str] | None:
    """The next premise that helps and what follows from it; None where the query is told or nothing helps."""
    goal = read_query(query)
    read = [(index, said) for index in organised(premises, query) if (said := read_statement(premises[index]))]
    known = {said.conclusion for _, said in read if not said.conditions}
    if goal in known:
        return None
    for index, said in read:
        fresh = Atom(goal.who, said.conclusion.quality)
        needed = said.for_goal(fresh)
        if needed is not None and fresh not in known and known.issuperset(needed):
            return index, f"{fresh.who} is {fresh.quality}."
    return None


def conclusions(premises: Sequence[str], query: str) -> list[str]:
    """What follows on the way to the query, a sentence each; its last is the query where that can be derived."""
    told = list(premises)
    while (step := inference(told, query)) is not None:
        told.append(step[1])
    return told[len(premises) :]
