"""Sets for ThinkSum: odd one out, invented words, small deductions about an order; each with its way to think of it.

`wording` picks one of several paraphrases of everything that is put to a model; the question stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from random import Random

from headrace.reason.answers import Choice
from headrace.reason.choices import LETTERS, Options
from headrace.reason.task import Task
from headrace.reason.tasks.posed import Posed
from headrace.reason.tasks.words import FACTS, KINDS
from headrace.reason.thoughts import Sum, Thought, combined, log_sum_exp
from headrace.spec.sampling import Stop

WORDINGS = 3
CHOICES = 4


def _posed(family: str, stem: str, options: Sequence[str], right: int, think: object) -> Posed:
    asked = Options(stem, tuple(options))
    meta = {"choices": asked, "think": think}
    task = Task(asked.text(), Choice(asked.letters), ending=Stop(tokens=48), meta=meta)
    return Posed(task, LETTERS[right], family)


# -- odd one out -----------------------------------------------------------------------------------

ODD_STEMS = (
    "Which word is the odd one out?",
    "Which word does not belong with the others?",
    "Find the word that differs.",
)
ODD_CONTEXTS = ("Words of one kind: {word},", "Similar things: {word} and", "A {word} is the same kind of thing as a")


@dataclass(frozen=True, slots=True)
class Outlier:
    """How likely each word is behind each other one, above how likely it is behind any word."""

    words: tuple[str, ...]
    context: str
    kind: str | None = None

    def thoughts(self, examples: Sequence[str]) -> list[Thought]:
        after = tuple(f" {word}" for word in self.words)
        return [Thought(self.context.format(word=word), after) for word in self.words]

    def weigh(self, found: Sequence[Sequence[float]], how: Sum) -> list[float]:
        """Minus the mean likeness of each word to the others; `how` does not apply to pairs."""
        usual = combined(found, "mixture")
        count = range(len(self.words))
        likeness = [[found[row][column] - usual[column] for column in count] for row in count]
        return [-math.fsum(likeness[i][j] + likeness[j][i] for j in count if j != i) / (len(count) - 1) for i in count]


def odd_one_out(seed: int, wording: int = 0) -> Posed:
    rng = Random(f"odd/{seed}")
    kind, other = rng.sample(sorted(KINDS), 2)
    words, right = rng.sample(KINDS[kind], CHOICES - 1), rng.randrange(CHOICES)
    words.insert(right, rng.choice(KINDS[other]))
    return _posed("odd", ODD_STEMS[wording], words, right, Outlier(tuple(words), ODD_CONTEXTS[wording]))


# -- invented words --------------------------------------------------------------------------------

INVENTED_STEMS = (
    "A {word} is a {kind}. What is true of a {word}?",
    "The word {word} means a sort of {kind}. Which is true: a {word} …",
    "Think of a {kind} called {word}. What can be said of it?",
)
INVENTED_CONTEXTS = ("A {member}", "Everybody knows that a {member}", "Fact: a {member}")
PRIORS = ("A thing", "Everybody knows that a thing", "Fact: a thing")


@dataclass(frozen=True, slots=True)
class Members:
    """What is said of the kind's known members, above what is said of anything, put together over the members."""

    of: str
    predicates: tuple[str, ...]
    wording: int
    kind: str | None

    def thoughts(self, examples: Sequence[str]) -> list[Thought]:
        after = tuple(f" {predicate}" for predicate in self.predicates)
        members = [INVENTED_CONTEXTS[self.wording].format(member=member) for member in examples or [self.of]]
        return [Thought(context, after) for context in (PRIORS[self.wording], *members)]

    def weigh(self, found: Sequence[Sequence[float]], how: Sum) -> list[float]:
        prior, *rows = found
        return combined([[value - usual for value, usual in zip(row, prior, strict=True)] for row in rows], how)


def invented_word(seed: int, wording: int = 0) -> Posed:
    rng = Random(f"invented/{seed}")
    word = "".join(rng.choice(part) for part in ("bdfgkz", "aeiou", "lmnr", "bdgp", "aeiou", "lmnr"))
    kinds = rng.sample(sorted(FACTS), CHOICES)
    right = rng.randrange(CHOICES)
    kind, predicates = kinds[right], tuple(FACTS[name] for name in kinds)
    stem = INVENTED_STEMS[wording].format(word=word, kind=kind)
    return _posed("invented", stem, predicates, right, Members(kind, predicates, wording, kind))


# -- deduction -------------------------------------------------------------------------------------

SAID = (
    ("{a} is taller than {b}.", "{b} is shorter than {a}."),
    ("{a} is not as short as {b}.", "{b} is not as tall as {a}."),
    ("Of {a} and {b}, {a} is the taller one.", "Of {a} and {b}, {b} is the shorter one."),
)
CLUE = (
    "{clue} So between the two, the taller one is",
    "{clue} In other words, the taller person is",
    "{clue} Who is taller? It is",
)
"""What follows a clue where a model was taught to go on with the taller one, as lm-t-reader is."""
PEOPLE = ("Anna", "Ben", "Carl", "Dora", "Emma", "Fred", "Gina", "Hugo")
SHOWN_CLUE = ("{clue}\nThe taller one:", "{clue}\nTaller:", "{clue} So the taller one is")
"""What follows it for any other model, behind SHOWN."""
SHOWN = (
    *(("Ivan", "Judy", 0), ("Lena", "Kurt", 1), ("Sara", "Ralph", 1), ("Oscar", "Paula", 0)),
    *(("Vera", "Todd", 0), ("Walt", "Nora", 1), ("Xenia", "Mark", 1), ("Zack", "Wendy", 0)),
)
"""Worked clues about nobody of PEOPLE: the taller one, the other, and in which manner that is said."""


def shown(wording: int) -> str:
    """What is put to a model about a clue, behind examples of it with their answers."""
    cue, said = SHOWN_CLUE[wording], SAID[wording]
    told = [f"{cue.format(clue=said[manner].format(a=a, b=b))} {a}.\n" for a, b, manner in SHOWN]
    return "".join([*told, cue])


@dataclass(frozen=True, slots=True)
class Clue:
    """Which of two people is taller. `same`: what is said of it, and other words for it; `opposite`: words against."""

    same: tuple[str, ...]
    opposite: tuple[str, ...]
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Every order weighed by how likely the model finds what it says about each clue; summed over orders (a latent).

    What is as likely behind a clue's opposite counts for nothing: small models lean on whoever is named last.
    """

    people: tuple[str, ...]
    clues: tuple[Clue, ...]
    cue: str
    kind: str | None = None

    def thoughts(self, examples: Sequence[str]) -> list[Thought]:
        return [
            Thought(self.cue.format(clue=text), (f" {self.people[clue.first]}", f" {self.people[clue.second]}"))
            for clue in self.clues
            for text in (*clue.same, *clue.opposite)
        ]

    def weigh(self, found: Sequence[Sequence[float]], how: Sum) -> list[float]:
        """The log-weight that each person is the tallest: the sum over all orders, or with `how` "max" the best."""
        weighed: list[list[float]] = [[] for _ in self.people]
        rows = self.rows(found)
        for order in permutations(range(len(self.people))):
            place = {person: order.index(person) for person in order}
            logs = [
                row[0 if place[clue.first] < place[clue.second] else 1] - log_sum_exp(row)
                for clue, row in zip(self.clues, rows, strict=True)
            ]
            weighed[order[0]].append(math.fsum(logs))
        return [max(logs) if how == "max" else log_sum_exp(sorted(logs)) for logs in weighed]

    def rows(self, found: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
        """Of each clue, how likely its people are: behind what says the same, above what says the opposite."""
        left = iter(found)
        signs = [[1] * len(clue.same) + [-1] * len(clue.opposite) for clue in self.clues]
        asked = [[(sign * row[0], sign * row[1]) for sign, row in zip(own, left, strict=False)] for own in signs]
        return [(math.fsum(first for first, _ in own), math.fsum(second for _, second in own)) for own in asked]


def deduction(seed: int, wording: int = 0, taught: bool = False) -> Posed:
    """Who is the tallest of four, from the three comparisons of neighbours in a random order and manner.

    `taught`: the thoughts are the clues alone, for a model that has learned what is to follow them. Else each is
    turned around twice: with the names exchanged, with the opposite word, and with both, which says the same.
    """
    rng = Random(f"deduction/{seed}")
    people = rng.sample(PEOPLE, CHOICES)
    order = rng.sample(range(CHOICES), CHOICES)
    clues = []
    for above, below in pairwise(order):
        manner = rng.randrange(2)
        said = SAID[wording][manner], SAID[wording][1 - manner]
        same = tuple(text.format(a=people[above], b=people[below]) for text in said)
        opposite = tuple(text.format(a=people[below], b=people[above]) for text in said)
        first, second = (above, below) if rng.random() < 0.5 else (below, above)
        clues.append(Clue(same[:1], (), first, second) if taught else Clue(same, opposite, first, second))
    rng.shuffle(clues)
    stem = " ".join(clue.same[0] for clue in clues) + " Who is the tallest?"
    cue = CLUE[wording] if taught else shown(wording)
    return _posed("deduction", stem, people, order[0], Ranking(tuple(people), tuple(clues), cue))


FAMILIES: dict[str, Callable[[int, int], Posed]] = {
    "odd": odd_one_out,
    "invented": invented_word,
    "deduction": deduction,
}
