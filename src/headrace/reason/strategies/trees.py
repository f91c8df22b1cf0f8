"""Searches that go back to earlier nodes of the tree."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from headrace.reason.node import Node
from headrace.reason.run import Run
from headrace.reason.strategies.beams import top
from headrace.reason.strategy import strategy
from headrace.spec.sampling import Sampling


@strategy("tree_of_thought", rule="score", needs=("scorer",), paper="2305.10601")
async def tree_of_thought(run: Run, branch: int = 4, breadth: int = 2) -> None:
    """Breadth first: `branch` thoughts for each of the `breadth` best states; finished ones compete at the end."""
    front, earlier = [await run.open()], len(run.candidates)
    while front and len(run.candidates) - earlier < branch:
        children = [kid for node in front for kid in node.fork(branch)]
        await run.step(children)
        values = await run.scores(children)
        chosen = [children[index] for index in top(values, breadth)]
        for node in (*front, *children):
            if node not in chosen:
                node.drop()
        await run.finish([node for node in chosen if node.ending is not None])
        front = [node for node in chosen if node.ending is None]


@dataclass(slots=True, eq=False)
class _Place:
    """A node of the search tree: visits, sum of values, prior and children."""

    node: Node
    parent: _Place | None = None
    prior: float = 1.0
    visits: int = 0
    total: float = 0.0
    children: list[_Place] = field(default_factory=list)
    closed: bool = False

    def upper(self, c: float) -> float:
        """PUCT (AlphaGo Zero's rule): mean value plus a bonus for rare visits."""
        assert self.parent is not None
        mean = self.total / self.visits if self.visits else 0.0
        return mean + c * self.prior * math.sqrt(self.parent.visits) / (1 + self.visits)


@strategy("mcts", rule="score", needs=("scorer",), paper="2405.03553")
async def mcts(run: Run, simulations: int = 16, expand: int = 3, c: float = 0.5, greedy: bool = False) -> None:
    """Monte Carlo tree search whose every simulation is rolled out to a finished attempt and scored.

    A search without rollout often ends with no answer at all; this one has one after its first simulation.
    A step's prior is exp(its mean log-probability) under the policy, as in AlphaMath, whose trained value the
    scorer stands in for. `greedy` rolls out at temperature 0.
    """
    root = _Place(await run.open())
    for _ in range(simulations):
        leaf = _descend(root, c)
        if leaf is None or run.exhausted:
            break
        await _expand(run, leaf, expand)
        for place in [child for child in leaf.children if not child.closed][:1] or leaf.children[:1]:
            await _roll_out(run, place, greedy)


def _descend(root: _Place, c: float) -> _Place | None:
    """The unexpanded place that the rule leads to; None where the whole tree is closed."""
    place = root
    while place.children:
        open_ones = [child for child in place.children if not child.closed]
        if not open_ones:
            place.closed = True
            if place.parent is None:
                return None
            place = root
            continue
        place = max(open_ones, key=lambda child: child.upper(c))
    return None if place.closed else place


async def _expand(run: Run, leaf: _Place, count: int) -> None:
    kids = leaf.node.fork(count)
    await run.step(kids, replace(run.sampling, logprobs=0))
    values = await run.scores(kids)
    for kid, value in sorted(zip(kids, values, strict=True), key=lambda pair: -pair[1]):
        place = _Place(kid, leaf, _prior(leaf.node, kid))
        leaf.children.append(place)
        if kid.ending is not None:
            place.closed = True
            await run.finish([kid])
            _back_up(place, value)
    run.journal.note("expanded", priors={child.node.id: child.prior for child in leaf.children})


def _prior(parent: Node, kid: Node) -> float:
    """Between 0 and 1; not shared out among siblings, which may be equal texts."""
    return math.exp((kid.logprob - parent.logprob) / max(kid.drawn - parent.drawn, 1))


async def _roll_out(run: Run, place: _Place, greedy: bool) -> None:
    if place.closed:
        return
    (scout,) = place.node.fork(1)
    while scout.ending is None:
        await run.step([scout], Sampling(temperature=0) if greedy else None)
    (value,) = await run.scores([scout])
    await run.finish([scout])
    _back_up(place, value)


def _back_up(place: _Place, value: float) -> None:
    at: _Place | None = place
    while at is not None:
        at.visits += 1
        at.total += value
        at = at.parent
