"""Pairs of worlds that differ only in what one principal may not see: corpora, adapters and histories.

Non-interference as in Goguen and Meseguer, Security policies and security models, S&P 1982.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal, TypeAlias

from headrace.privacy.labels.flow import FlowLabel, FlowLattice, Labelled
from headrace.privacy.labels.lattice import Categories, Lattice, Levels, Product
from headrace.privacy.labels.policy import Policy

VIEWER, ADAPTER = "viewer", "house"
WORDS = "river stone vault code salary letter garden engine harbour winter".split()
LINES = tuple(
    f"The {a} of the {b} was never told to the {c}. "
    for a, b, c in (WORDS[0:3], WORDS[3:6], WORDS[6:9], (WORDS[2], WORDS[9], WORDS[4]))
)
Kind: TypeAlias = Literal["ask", "say"]


@dataclass(frozen=True, slots=True)
class Act:
    """A request: `ask` searches the library first, `say` sends the text itself and then `more`, if any.

    `keep`: a fork of it writes a summary into the library. `late`: it is awaited after everything else.
    """

    kind: Kind
    principal: str
    label: FlowLabel
    text: str
    more: Labelled[str] | None = None
    adapted: bool = False
    keep: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """`adapter`: seed of the matrices that the adapter `house` has here."""

    policy: Policy
    passages: tuple[tuple[str, Labelled[str]], ...]
    acts: tuple[Act, ...]
    adapter: int

    @property
    def labels(self) -> list[FlowLabel]:
        return list(self.policy.lattice.elements())


def draw_pair(rng: Random) -> tuple[World, World]:
    """Two worlds that are equal in all that flows to the clearance of `viewer`."""
    draw = _Drawing(rng)
    common = [draw.act(draw.seen) for _ in range(rng.randint(2, 4))]
    hidden = [[draw.act(draw.hidden) for _ in range(rng.randint(0, 3))] for _ in range(2)]
    common += [draw.probe(hidden[0] + hidden[1] + common), draw.look()]
    passages = draw.passages(draw.seen, rng.randint(1, 4))
    adapter_seen = draw.policy.adapters[ADAPTER] in draw.seen
    worlds = []
    for side in range(2):
        mine = passages + draw.passages(draw.hidden, rng.randint(0, 3))
        acts = draw.mixed([draw.with_secret(act) if side else act for act in common], hidden[side])
        worlds.append(World(draw.policy, tuple(mine), tuple(acts), 0 if adapter_seen else side))
    return worlds[0], worlds[1]


class _Drawing:
    """`seen` and `hidden`: the labels that flow to the viewer's clearance, and the others."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        lattice = FlowLattice(_lattice(rng), _lattice(rng))
        while len(set(lattice.elements())) == 1:
            lattice = FlowLattice(_lattice(rng), _lattice(rng))
        labels = list(lattice.elements())
        clearance = rng.choice([label for label in labels if label != lattice.top])
        others = {name: rng.choice(labels) for name in ("ann", "ben")}
        clearances = {VIEWER: clearance, **others, "root": lattice.top}
        self.policy = Policy(lattice, clearances, {ADAPTER: rng.choice(labels)})
        self.seen = [label for label in labels if lattice.leq(label, clearance)]
        self.hidden = [label for label in labels if label not in self.seen]

    def act(self, labels: list[FlowLabel]) -> Act:
        """A request at one of the labels by somebody who is cleared for all of it."""
        rng, policy, lattice = self.rng, self.policy, self.policy.lattice
        label = rng.choice(labels)
        kind: Kind = rng.choice(("ask", "say"))
        more = None
        if kind == "say" and rng.random() < 0.5:
            more = Labelled(self.line(), rng.choice(list(lattice.elements())))
        adapted = rng.random() < 0.3
        reach = lattice.join_all(
            [label, more.label if more else label, policy.adapters[ADAPTER] if adapted else lattice.bottom]
        )
        able = [name for name in policy.clearances if policy.may_read(name, reach)]
        flags = {"keep": rng.random() < 0.4, "late": labels is self.hidden and rng.random() < 0.4}
        return Act(kind, rng.choice(able), label, self.line() + self.line(), more, adapted, **flags)

    def probe(self, acts: list[Act]) -> Act:
        """The viewer says what somebody else may have said, to see whether it is cached."""
        guess = self.rng.choice([act for act in acts if act.more] or acts)
        text = guess.text + (guess.more.value if guess.more else "")
        label = guess.label if guess.label in self.seen else self.rng.choice(self.seen)
        return Act("say", VIEWER, label, text)

    def look(self) -> Act:
        """The viewer asks with every word there is, at all they may read: whatever leaked into the library shows."""
        return Act("ask", VIEWER, self.policy.clearance(VIEWER), " ".join(["summary", *WORDS]))

    def with_secret(self, act: Act) -> Act:
        """A common request that goes on with a secret goes on with another one in the other world."""
        if act.more is None or act.more.label in self.seen:
            return act
        other = self.rng.choice([line for line in LINES if line != act.more.value])
        return replace(act, more=Labelled(other, act.more.label))

    def passages(self, labels: list[FlowLabel], count: int) -> list[tuple[str, Labelled[str]]]:
        texts = [" ".join(self.rng.choice(WORDS) for _ in range(self.rng.randint(2, 7))) for _ in range(count)]
        return [(f"p{self.rng.randint(0, 9)}", Labelled(text, self.rng.choice(labels))) for text in texts]

    def mixed(self, common: list[Act], hidden: list[Act]) -> list[Act]:
        """Both in their order; the last common act stays last."""
        acts = list(common)
        places = sorted(self.rng.randint(0, len(common) - 1) for _ in hidden)
        for place, act in reversed(list(zip(places, hidden, strict=True))):
            acts.insert(place, act)
        return acts

    def line(self) -> str:
        return self.rng.choice(LINES)


def _lattice(rng: Random) -> Lattice:
    levels = Levels(("low", "middle", "high")[: rng.randint(1, 3)])
    categories = Categories(("a", "b")[: rng.randint(0, 2)])
    return rng.choice((levels, categories, Product((Levels(levels.names[:2]), categories))))
