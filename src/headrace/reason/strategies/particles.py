"""Particle filtering: attempts weighted by a reward, resampled, with an unbiased estimate of the evidence."""

from __future__ import annotations

from headrace.reason.choice import Choice, Seeded
from headrace.reason.node import Node
from headrace.reason.population import Population
from headrace.reason.resample import Method
from headrace.reason.run import Run
from headrace.reason.smc import Target, factor
from headrace.reason.strategies.beams import multiplied
from headrace.reason.strategy import strategy

FLOOR = 1e-6
"""A reward of 0 would kill a particle for good, on the word of a scorer that may err."""


@strategy("smc", rule="weighted", needs=("scorer",), paper="2502.01618")
async def smc(
    run: Run, n: int = 8, target: Target = "outcome", method: Method = "systematic", threshold: float = 0.5
) -> None:
    """n particles for the declared target: `outcome` is p(y) r(y), `product` p(y) times the scores of all steps.

    Resampled when the effective sample size falls below threshold * n; a finished particle keeps its weight
    and is never weighed again. Candidates carry their weights into the vote.
    """
    choice = Seeded(f"{run.seed}/smc")
    population: Population[Node] = Population.even((await run.open()).fork(n))
    while any(node.ending is None for node in population.particles):
        alive = [node for node in population.particles if node.ending is None]
        before = {node.id: node.steps[-1] if node.steps else 1.0 for node in alive}
        await run.step(alive, whole=True)  # what is left of the particles is no sample of the target
        await run.scores(alive)
        unscored = run.exhausted  # then a value of 0 may say no more than that nobody paid for it
        now = {n.id: before[n.id] if unscored and n.value == 0 else max(n.value, FLOOR) for n in alive}
        factors = [
            factor(target, before[node.id], now[node.id]) if node.id in now else 1.0 for node in population.particles
        ]
        for node in alive:
            node.steps[-1] = now[node.id]
        population = population.reweight(factors)
        ess = float(population.ess())
        run.journal.note("weighted", ess=ess, log_evidence=population.log_evidence)
        if ess < threshold * n and not run.exhausted:
            population = _resampled(population, choice, method)
            run.journal.note("resampled", nodes=[node.id for node in population.particles])
    shares = [float(share) for share in population.shares()]
    for candidate, share in zip(await run.finish(population.particles), shares, strict=True):
        candidate.weight, candidate.score = share * n, 1.0


def _resampled(population: Population[Node], choice: Choice, method: Method) -> Population[Node]:
    parents = population.ancestors(choice, method)
    copies: dict[int, list[Node]] = {}
    for index, node in enumerate(population.particles):
        copies[index] = multiplied(node, parents.count(index))
    return Population.even((copies[parent].pop(0) for parent in parents), population.total)
