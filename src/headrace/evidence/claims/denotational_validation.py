"""System 79, denotational validation: every inference block does to the represented measure what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from headrace.evidence import finite
from headrace.evidence.finite import Policy, broken_pairs, only_now
from headrace.evidence.systems import system
from headrace.evidence.verdict import judged, mutant_run
from headrace.reason import blocks, smc
from headrace.reason.blocks import Block, Measure, expected, law, mean_measure, push
from headrace.reason.choice import Choice, distribution, draw
from headrace.reason.green import regenerate, traced
from headrace.reason.population import Population
from headrace.reason.resample import METHODS
from headrace.reason.smc import Target
from headrace.spec.claim import Claim, Clause, Evidence, Size

ROW = system(79)
LAWS, GREEN, CAUGHT, ASSEMBLED = ROW.clauses
CONTINUOUS = "spaces that are continuous are tested by statistics only"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Random populations put to each block, their largest size, and the policies (symbols, tokens, particles)."""

    populations: int
    largest: int
    policies: tuple[tuple[int, int, int], ...]


SIZES: dict[Size, Sizes] = {
    "quick": Sizes(8, 3, ((3, 3, 2),)),
    "full": Sizes(100, 4, ((3, 3, 2), (3, 2, 3), (4, 5, 2))),
}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    crowd = finite.populations(sizes.populations, sizes.largest)
    laws, checks = check_laws(crowd, block_list())
    clauses = (laws, check_green(), check_wrong(crowd), check_smc(sizes.policies))
    mutant = [
        check_laws(crowd, finite.WRONG)[0],
        check_green(jacobian=1),
        check_smc(sizes.policies[:1], lambda block: finite.WRONG[0] if block.name == "resample" else block),
    ]
    what = "Mutants: resamplers that are biased; a Green move without its Jacobian; a filter with a wrong resampler"
    caught = mutant_run(what, mutant)
    null_run = caught if all(one.status == "failed" for one in mutant) else judged(what, False, caught.figure)
    numbers: dict[str, float | int | str | list[float]] = {"populations": len(crowd), "checks": checks}
    return Evidence(CLAIM.id, clauses, null_run, numbers, None, "", size)


def step(letter: str, choice: Choice) -> str:
    """A kernel on the letters a to d."""
    return "abcd"[("abcd".index(letter) + draw(choice, [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)])) % 4]


def block_list() -> list[Block]:
    return [
        blocks.reweight(lambda letter: Fraction("abcd".index(letter), 3)),
        blocks.move(step),
        *(blocks.resample(method, threshold) for method in METHODS for threshold in (Fraction(1, 2), 2)),
        blocks.resample("multinomial", 2, n=1),
        blocks.expand(2),
        blocks.thin(2),
    ]


def check_laws(crowd: Sequence[Population], put: Sequence[Block]) -> tuple[Clause, int]:
    """Blocks on populations, the weighted and spawned program, and the kernels on traces and dimensions."""
    broken = [block.name for block in put for population in crowd if not keeps_its_law(block, population)]
    goal = finite.guess_measure()
    for n in (1, 2, 3):
        broken += [] if mean_measure(distribution(blocks.spawn(finite.guess, n))) == goal else ["spawn"]
    for name, kernel, masses in kernels():
        broken += [] if push(masses, kernel) == masses else [name]
    plain, traces = distribution(finite.coins), distribution(traced(finite.coins))
    for value, probability in plain.items():
        mass = sum(p for trace, p in traces.items() if trace.value == value)
        broken += [] if mass == probability else ["traced"]
    checks = len(put) * len(crowd) + 3 + len(kernels()) + len(plain)
    which = f" ({', '.join(sorted(set(broken)))})" if broken else ""
    figure = (
        f"{len(broken)} of {checks} checks differ{which}: {len(put)} blocks on {len(crowd)} populations; {CONTINUOUS}"
    )
    return judged(LAWS, not broken, figure), checks


def keeps_its_law(block: Block, population: Population) -> bool:
    sure = {population: Fraction(1)}
    got, said = expected([block], sure), law([block], mean_measure(sure))
    return all(got.get(value, 0) == said.get(value, 0) for value in {*got, *said})


def kernels(jacobian: int = 2) -> list[tuple[str, blocks.Kernel, Measure]]:
    """Moves between dimensions, with the masses that they are to leave invariant."""
    traces = distribution(traced(finite.coins))
    return [
        ("split and merge", finite.split_or_merge(jacobian), {state: finite.mass(state) for state in finite.lattice()}),
        (
            "regenerate",
            regenerate(finite.coins, finite.liked),
            {trace: prior * finite.liked(trace.value) for trace, prior in traces.items()},
        ),
    ]


def check_green(jacobian: int = 2) -> Clause:
    found = [(name, len(masses), broken_pairs(kernel, masses)) for name, kernel, masses in kernels(jacobian)]
    figure = ", ".join(f"{name}: {broken} pairs of {states} states break it" for name, states, broken in found)
    return judged(GREEN, not any(broken for _, _, broken in found), figure)


def check_wrong(crowd: Sequence[Population]) -> Clause:
    seen = {block.name: sum(not keeps_its_law(block, population) for population in crowd) for block in finite.WRONG}
    figure = ", ".join(f"{name}: on {count} of {len(crowd)} populations" for name, count in seen.items())
    return judged(CAUGHT, all(seen.values()), figure)


def check_smc(
    policies: Sequence[tuple[int, int, int]], change: Callable[[Block], Block] = lambda block: block
) -> Clause:
    """The particle filter consists of checked blocks, and its expected measure is the target, sequence by sequence."""
    strange, wrong, sequences = set[str](), 0, 0
    for symbols, tokens, n in policies:
        policy = Policy(symbols, tokens)
        for target in ("outcome", "product"):
            stages = tuple(map(change, particle_filter(policy, target)))
            strange |= {block.name for block in stages if block.run.__module__ != blocks.__name__}
            found, goal = only_now(expected(stages, {policy.start(n): Fraction(1)})), policy.target(target)
            wrong += sum(found.get(y, 0) != mass for y, mass in goal.items())
            sequences += len(goal)
    figure = f"{wrong} of {sequences} sequences differ from the outcome and product targets"
    figure += f"; stages other than checked blocks: {', '.join(sorted(strange)) or 'none'}"
    return judged(ASSEMBLED, not wrong and not strange, figure)


def particle_filter(policy: Policy, target: Target) -> tuple[Block, ...]:
    return smc.smc(policy.extend, policy.finished, policy.score, policy.longest, target)


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Each block of the samplers keeps the represented measure, enumerated over all random choices in rationals.",
    "The target, enumerated without any of the blocks.",
    ("exact",),
    "About 2 minutes on one core for a full run; no model.",
    run,
)
