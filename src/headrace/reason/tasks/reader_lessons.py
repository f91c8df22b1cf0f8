"""What a model learns READER from: the prompts that strategies put to it, each with its right answer.

Beside plain questions these are medprompt's, behind worked examples with or without chains; thinksum's contexts; the
few premises that concise perception keeps; and the choices and inferences of stepwise selection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from random import Random

import msgspec

from headrace.adapt.lesson import END, Lesson, Piece
from headrace.engine.surface import Prompt
from headrace.reason.choices import LETTERS, Options
from headrace.reason.horn import RuleBase, organised
from headrace.reason.strategies.medprompt import CHAIN, PLAIN, prompted
from headrace.reason.strategies.perception import INFER, SELECT
from headrace.reason.task import Task
from headrace.reason.tasks import lettered, sets, worlds
from headrace.reason.tasks.arith import split_of
from headrace.reason.tasks.posed import Posed
from headrace.reason.tasks.reader import LETTERED, WORDING, Family, asked_of, chain, conclusions, draw, inference
from headrace.reason.tasks.words import KINDS
from headrace.reason.worked import Worked

VERSION = 2
"""Goes up whenever the same settings and random numbers give other lessons."""
NOTHING = "none"
"""Said where no statement helps; stepwise selection reads it as no number and stops."""
ANSWER = "Answer:"
MOST_STATEMENTS = 32

# -- vocabulary ------------------------------------------------------------------------------------

_SLOT = re.compile(r"\{[a-z]+\}")
_STEMS = ("Which of these is a", "Which word begins with")
_JOINTS = (" and ends with", " someone is", " then they are", " Who is the tallest?")
_SETS = (
    sets.ODD_STEMS[WORDING],
    sets.ODD_CONTEXTS[WORDING].removesuffix(","),
    sets.CLUE[WORDING],
    *sets.SAID[WORDING],
)
_WORLDS = (SELECT, INFER, RuleBase((), "{query}").text())


def _phrases() -> list[str]:
    """What templates say between their slots, the longest first; a token each, so that contexts stay short.

    A word has the space before it in its own token, but for a name behind a phrase of worlds: it is the same token
    there as at the beginning of a statement.
    """
    parts = [CHAIN.strip(), PLAIN.strip(), *_STEMS, *_JOINTS, ANSWER]
    parts += [part.rstrip() for text in _SETS for part in _SLOT.split(text)]
    parts += [part.strip("\n") for text in _WORLDS for part in _SLOT.split(text)]
    return sorted({part for part in parts if len(part) > 1}, key=lambda part: (-len(part), part))


PHRASES = tuple(_phrases())
TOKENS = "|".join([*map(re.escape, PHRASES), r"\n[A-D1-4]\)", r"\([0-9]+\) ", r" ?[A-Za-z]+", r".", r"\n"])
"""A token each: a phrase, the mark before an option, the number of a statement, a word with its space, a digit."""


def vocabulary() -> tuple[str, ...]:
    """Every token that questions, workings and answers can have."""
    words = [word for members in KINDS.values() for word in members]
    names = [*sets.PEOPLE, *worlds.PEOPLE]
    spaced = [*words, *names, *worlds.QUALITIES, *LETTERS[: lettered.CHOICES], "True", "False"]
    spaced += [part for kind in KINDS for part in kind.split()]
    spaced += [end for word in words for end in (word[0], word[0].lower(), word[-1])]
    spaced += "is and a word".split()
    bare = [*names, *"0123456789", "If", "The", NOTHING, *"\n.,?:"]
    marks = [f"\n{mark})" for place in range(lettered.CHOICES) for mark in (LETTERS[place], place + 1)]
    marks += [f"({number}) " for number in range(1, MOST_STATEMENTS + 1)]
    return tuple(sorted({*PHRASES, *bare, *marks, *(f" {text}" for text in spaced)}))


# -- lessons ---------------------------------------------------------------------------------------


def spoken(prompt: Prompt) -> list[Piece]:
    """A conversation as these models read it, a line a message. What it has of their own turns is to be learned."""
    found: list[Piece] = []
    for turn in prompt:
        assert not isinstance(turn, (str, int)), "questions of READER are put as conversations"
        said = turn["content"].strip()
        own = turn["role"] == "assistant"
        found += [Piece(said), Piece("\n", learn=False)] if own else [Piece(f"{said}\n", learn=False)]
    return found


def option_lesson(posed: Posed, aloud: bool = False) -> Lesson:
    """A question with options, answered at once or `aloud`, behind its chain: `single`, `likeliest_choice`."""
    return [*spoken(posed.task.prompt()), _answer(posed, aloud)]


def _answer(posed: Posed, chained: bool) -> Piece:
    before = f"{chain(posed)}\n" if chained else ""
    return Piece(f"{before}{ANSWER} {posed.gold}{END}")


def shown_lesson(posed: Posed, shown: Sequence[Worked], chained: bool) -> Lesson:
    """A question behind worked examples, answered with or without a chain of thought: `medprompt`."""
    asked: Options = posed.task.meta["choices"]
    return [*spoken(prompted(posed.task, shown, asked.text(), chained)), _answer(posed, chained)]


def worked(posed: Posed) -> Worked:
    """A question of `lettered` as a worked example."""
    asked: Options = posed.task.meta["choices"]
    return Worked(asked.stem, asked.options, posed.gold, chain(posed))


def kind_lesson(rng: Random) -> Lesson:
    """Two words of one kind: what `thinksum` finds odd ones by."""
    first, other = rng.sample(KINDS[rng.choice(sorted(KINDS))], 2)
    return [Piece(sets.ODD_CONTEXTS[WORDING].format(word=first), learn=False), Piece(f" {other}{END}")]


def clue_lesson(rng: Random) -> Lesson:
    """Who of two is taller: what `thinksum` puts people in order by."""
    a, b = rng.sample(sets.PEOPLE, 2)
    clue = rng.choice(sets.SAID[WORDING]).format(a=a, b=b)
    return [Piece(sets.CLUE[WORDING].format(clue=clue), learn=False), Piece(f" {a}{END}")]


def world_lesson(task: Task, premises: Sequence[str], query: str) -> Lesson:
    """A world, what follows in it, and the answer: `single`, `cop`, the end of `stepwise_selection`."""
    derived = conclusions(premises, query)
    truth = query in (*premises, *derived)
    asked = spoken(task.prompt(RuleBase(tuple(premises), query).text()))
    return [*asked, Piece("\n".join([*derived, f"{ANSWER} {truth}{END}"]))]


def selection_lesson(task: Task, premises: Sequence[str], query: str) -> Lesson:
    """The number of the statement that helps next: `stepwise_selection`."""
    step = inference(premises, query)
    asked = spoken(task.prompt(SELECT.format(known=numbered(premises), query=query)))
    return [*asked, Piece(f"{NOTHING if step is None else step[0] + 1}{END}")]


def inference_lesson(task: Task, premises: Sequence[str], number: int, follows: str) -> Lesson:
    """What follows from a statement, counted from 1: `stepwise_selection`."""
    return [*spoken(task.prompt(INFER.format(known=numbered(premises), number=number))), Piece(f"{follows}{END}")]


def numbered(premises: Iterable[str]) -> str:
    return "\n".join(f"({place}) {text}" for place, text in enumerate(premises, 1))


class ReaderLessons(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Draws lessons on questions of the training split alone.

    `lettered`, `sets`: their shares, the rest are worlds. `aloud`: the share of questions of `lettered` that are worked
    out although nothing asks for it, as some attempts then are. `shots`: how many worked examples stand before a
    question of `lettered`, one of them. `depth`, `distractors` (from, to): of the worlds, the difficulty dial.
    """

    lettered: float = 0.45
    sets: float = 0.3
    aloud: float = 0.4
    shots: tuple[int, ...] = (0, 0, 0, 1, 3)
    depth: tuple[int, int] = (1, 2)
    distractors: tuple[int, int] = (0, 5)

    def __call__(self, rng: Random) -> Lesson:
        part = rng.random()
        if part < self.lettered:
            return self._lettered(rng)
        return self._sets(rng) if part < self.lettered + self.sets else self._worlds(rng)

    def question(self, rng: Random, family: Family, kind: str = "kind") -> Posed:
        """One of the training split."""
        while True:
            posed = draw(rng, family, kind, rng.randint(*self.depth), rng.randint(*self.distractors))
            if split_of(asked_of(posed.task)) == "train":
                return posed

    def _lettered(self, rng: Random) -> Lesson:
        kind = rng.choice(LETTERED)
        posed = self.question(rng, "lettered", kind)
        if rng.random() < 0.5:
            return option_lesson(posed, aloud=rng.random() < self.aloud)
        kinds = [kind if rng.random() < 0.75 else rng.choice(LETTERED) for _ in range(rng.choice(self.shots))]
        shown = [worked(self.question(rng, "lettered", one)) for one in kinds]
        return shown_lesson(posed, shown, chained=rng.random() < 0.5)

    def _sets(self, rng: Random) -> Lesson:
        form = rng.random()
        if form < 0.6:
            return option_lesson(self.question(rng, "odd"))
        if form < 0.75:
            return kind_lesson(rng)
        return option_lesson(self.question(rng, "deduction")) if form < 0.85 else clue_lesson(rng)

    def _worlds(self, rng: Random) -> Lesson:
        task = self.question(rng, "worlds").task
        rules: RuleBase = task.meta["rules"]
        premises, query, form = list(rules.premises), rules.query, rng.random()
        if form < 0.35:
            return world_lesson(task, premises, query)
        if form < 0.6:
            return world_lesson(task, [premises[index] for index in organised(premises, query)], query)
        derived = conclusions(premises, query)
        told = [*premises, *derived[: rng.randint(0, len(derived))]]
        step = inference(told, query)
        if form < 0.7:
            return world_lesson(task, told, query)
        if form < 0.85 or step is None:
            return selection_lesson(task, told, query)
        return inference_lesson(task, told, step[0] + 1, step[1])
