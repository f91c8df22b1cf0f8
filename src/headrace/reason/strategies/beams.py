"""Searches that go step by step and keep the best of a frontier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.reason.node import Node
from headrace.reason.run import Run
from headrace.reason.strategy import strategy
from headrace.reason.votes import allocate
from headrace.spec.sampling import Sampling

Keep = Callable[[Sequence[Node], Sequence[float]], dict[int, int]]
"""How many children each node of a frontier gets; those without any are dropped."""


async def frontier_search(run: Run, front: list[Node], keep: Keep, ahead: int = 0) -> None:
    """Step, score, keep; a node that ends becomes a candidate. Ends when no node is left."""
    while front:
        await run.step(front)
        await (lookahead(run, front, ahead) if ahead else run.scores(front))
        ended = [node for node in front if node.ending is not None]
        alive = [node for node in front if node.ending is None]
        await run.finish(ended)
        children = keep(alive, [node.value for node in alive]) if alive else {}
        if alive:
            run.journal.note("kept", nodes={alive[index].id: count for index, count in children.items()})
        front = []
        for index, node in enumerate(alive):
            front += multiplied(node, children.get(index, 0))


def multiplied(node: Node, count: int) -> list[Node]:
    """The node itself and `count` - 1 forks of it; with 0 it is dropped."""
    if count == 0:
        node.drop()
        return []
    return [node, *(node.fork(count - 1) if count > 1 else [])]


def top(values: Sequence[float], count: int) -> list[int]:
    """Indices of the `count` largest, the first seen of equal ones first."""
    return sorted(range(len(values)), key=lambda index: (-values[index], index))[:count]


@strategy("step_best_of_n", rule="score", needs=("scorer",), paper="2408.03314")
async def step_best_of_n(run: Run, n: int = 4) -> None:
    """n proposals for every step, of which the best goes on."""
    front = (await run.open()).fork(n)
    while True:
        await run.step(front)
        values = await run.scores(front)
        best = front[top(values, 1)[0]]
        for node in front:
            if node is not best:
                node.drop()
        if best.ending is not None:
            await run.finish([best])
            return
        front = multiplied(best, n)


@strategy("step_beam", rule="score", needs=("scorer",), paper="2408.03314")
async def step_beam(run: Run, width: int = 8, expand: int = 4) -> None:
    """width attempts at a time; after each step the best width/expand get expand children each."""
    await frontier_search(run, (await run.open()).fork(width), beam_rule(run, width, expand))


def beam_rule(run: Run, width: int, expand: int) -> Keep:
    """Attempts that finish take their places in the beam with them."""
    earlier = len(run.candidates)

    def keep(front: Sequence[Node], values: Sequence[float]) -> dict[int, int]:
        open_places = max(width - len(run.candidates) + earlier, 0)
        return dict(enumerate(allocate(values, open_places, keep=max(open_places // max(expand, 1), 1))))

    return keep


@strategy("lookahead", rule="score", needs=("scorer",), paper="2408.03314")
async def lookahead_search(run: Run, width: int = 4, expand: int = 4, ahead: int = 1) -> None:
    """A step beam that scores a step after `ahead` more steps at temperature 0, which are then thrown away."""
    await frontier_search(run, (await run.open()).fork(width), beam_rule(run, width, expand), ahead)


async def lookahead(run: Run, front: Sequence[Node], ahead: int) -> None:
    scouts = [node.fork(1)[0] for node in front]
    for _ in range(ahead):
        await run.step(scouts, Sampling(temperature=0))
    values = await run.scores(scouts, note=False)
    for node, scout, value in zip(front, scouts, values, strict=True):
        node.value = value
        node.steps.append(value)
        scout.drop()


@strategy("dvts", rule="weighted", needs=("scorer",), paper="2408.03314")
async def dvts(run: Run, width: int = 8, expand: int = 4) -> None:
    """width/expand independent trees; in each the best of expand steps goes on."""
    trees = max(width // max(expand, 1), 1)
    front = (await run.open()).fork(trees)
    while front:
        families = [multiplied(node, expand) for node in front]
        everyone = [node for family in families for node in family]
        await run.step(everyone)
        await run.scores(everyone)
        front = []
        for family in families:
            best = family[top([node.value for node in family], 1)[0]]
            for node in family:
                if node is not best:
                    node.drop()
            if best.ending is None:
                front.append(best)
            else:
                await run.finish([best])


@strategy("rebase", rule="weighted", needs=("scorer",), paper="2408.00724")
async def rebase(run: Run, width: int = 8, temperature: float = 0.2) -> None:
    """Children in proportion to a softmax of the scores, so that no promising branch dies early."""
    earlier = len(run.candidates)

    def keep(front: Sequence[Node], values: Sequence[float]) -> dict[int, int]:
        places = max(width - len(run.candidates) + earlier, 0)
        return dict(enumerate(allocate(values, places, "rebase", temperature=temperature)))

    await frontier_search(run, (await run.open()).fork(width), keep)
