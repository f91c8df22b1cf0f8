"""Facts that no model can know, planted in a labelled library: who gets them right, and who only guesses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from headrace.engine.engine import Engine
from headrace.engine.surface import Prompt
from headrace.evidence.scripted import END, Chances
from headrace.ground.grounded import Layout, answer
from headrace.ground.library import Index, Library, words
from headrace.privacy.labels.engine import LabelledEngine, one_pool
from headrace.privacy.labels.flow import FlowLabel, FlowLattice, Labelled
from headrace.privacy.labels.lattice import Categories, Levels
from headrace.privacy.labels.policy import Policy
from headrace.spec.reasoning import Passage
from headrace.spec.sampling import Sampling, Stop

LATTICE = FlowLattice(Categories(("vaults",)), Levels(("checked",)))
OPEN, CLOSED = LATTICE.bottom, LATTICE.top
POLICY = Policy(LATTICE, {"insider": CLOSED, "outsider": OPEN})
COLOURS = "amber azure crimson emerald golden indigo ivory scarlet silver violet".split()
PLACES = "cellar harbour mill observatory orchard tower vault workshop".split()
PASSAGES, STOP, GREEDY = 1, Stop(tokens=12), Sampling(temperature=0)
"""One passage: of two codes in its prompt SmolLM2 makes a third (2931 becomes 2932), whoever may read them."""


@dataclass(frozen=True, slots=True)
class Fact:
    place: str
    code: str
    label: FlowLabel

    @property
    def text(self) -> str:
        return f"The access code of the {self.place} is {self.code}."

    @property
    def question(self) -> str:
        return f"What is the access code of the {self.place}?"


def draw_facts(rng: Random, count: int) -> list[Fact]:
    """`count` facts with codes of four digits; every other one is closed."""
    places = [f"{colour} {place}" for colour in COLOURS for place in PLACES]
    codes = rng.sample(range(1000, 10000), count)
    chosen = rng.sample(places, count)
    return [Fact(chosen[n], str(codes[n]), CLOSED if n % 2 else OPEN) for n in range(count)]


def sentence_layout(question: str, passages: Sequence[Passage]) -> Prompt:
    """The passages, and the beginning of a sentence that answers the question: a small model goes on with it."""
    known = "".join(f"{passage.text}\n" for passage in passages)
    return f"{known}{question.replace('What is the', 'The').rstrip('?')} is"


def copier() -> Chances:
    """A scripted model: it goes on as the sentence does in its passages, else it says that it does not know."""

    def chances(text: str) -> dict[str, float]:
        known, _, sentence = text.rpartition("\n")
        asked, _, said = sentence.partition(" is")
        _, found, tail = known.rpartition(asked + " is")
        reply = tail.partition("\n")[0] if found else " unknown."
        return {reply[len(said)] if len(said) < len(reply) else END: 1.0}

    return chances


def library_of(facts: Sequence[Fact]) -> Library:
    library = Library(LATTICE)
    for fact in facts:
        library.add(fact.place, Labelled(fact.text, fact.label))
    return library


def ask_labelled(engine: Engine, library: Library, principal: str, facts: Sequence[Fact], layout: Layout) -> list[str]:
    """What the principal is told about each fact."""
    labelled = LabelledEngine(POLICY, one_pool(engine))
    how = {"count": PASSAGES, "layout": layout, "stop": STOP, "sampling": GREEDY, "seed": 0}

    async def all_of_them() -> list[str]:
        found = []
        for fact in facts:
            told = await answer(labelled, library, principal, Labelled(fact.question, OPEN), **how)  # type: ignore[arg-type]
            found.append(told.value.step.text)
        return found

    return asyncio.run(all_of_them())


def ask_plainly(engine: Engine, corpus: Sequence[Fact], facts: Sequence[Fact], layout: Layout) -> list[str]:
    """The baseline without labels: one index over all of `corpus`, or zero-shot where it is empty."""
    keys = sorted(corpus, key=lambda fact: fact.place)
    index = Index(keys, [words(fact.text) for fact in keys])
    found = []
    for fact in facts:
        best = index.best(words(fact.question), PASSAGES)
        passages = [Passage(known.place, known.text, score) for known, score in best]
        with engine.open_now(layout(fact.question, passages), seed=0, sampling=GREEDY) as sequence:
            found.append(sequence.extend(STOP).result().text)
    return found


def right(answers: Sequence[str], facts: Sequence[Fact]) -> list[float]:
    return [float(fact.code in told) for told, fact in zip(answers, facts, strict=True)]
