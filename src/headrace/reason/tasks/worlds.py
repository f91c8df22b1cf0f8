"""Worlds of facts and Horn rules in plain words, with distractors, a gold proof and a prover as oracle."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from headrace.reason.answers.truth import Truth
from headrace.reason.horn import RuleBase, prove
from headrace.reason.task import Task
from headrace.reason.tasks.posed import Posed
from headrace.spec.sampling import Stop

PEOPLE = ("Anne", "Bob", "Cara", "Dan", "Eve", "Finn")
QUALITIES = tuple(
    "red big kind smart cold young quiet rough green nice blue round happy strong tired brave calm proud rich sad "
    "loud tall warm fast neat".split()
)


@dataclass(frozen=True, slots=True)
class World:
    """`proof`: indices of the premises of a gold proof, None where the query cannot be derived."""

    posed: Posed
    rules: RuleBase
    proof: tuple[int, ...] | None


def world(seed: int, depth: int = 3, distractors: int = 20, tokens: int = 112) -> World:
    """A chain of `depth` rules, some with a second condition, among `distractors` other premises, all shuffled.

    Half of the queries are derivable; for the others a fact that the chain needs is left out. A few distractors
    conclude what the chain does, from what nobody is: they are no part of a proof but look like it.
    """
    rng = Random(f"world/{seed}/{depth}/{distractors}")
    who = rng.choice(PEOPLE)
    qualities = rng.sample(QUALITIES, len(QUALITIES))
    path, side, rest = qualities[: depth + 1], qualities[depth + 1 : 2 * depth + 1], qualities[2 * depth + 1 :]
    chain, facts = _chain(rng, who, path, side)
    true = rng.random() < 0.5
    if not true:
        facts.pop(rng.randrange(len(facts)))
    premises = [*chain, *facts]
    while len(premises) < len(chain) + len(facts) + distractors:
        premises.append(_distractor(rng, who, path, rest))
        premises = list(dict.fromkeys(premises))
    rng.shuffle(premises)
    rules = RuleBase(tuple(premises), f"{who} is {path[-1]}.")
    proof = prove(rules.premises, rules.query)
    answer = "false" if proof is None else "true"
    task = Task(rules.text(), Truth(), ending=Stop(tokens=tokens), meta={"rules": rules})
    return World(Posed(task, answer, "world"), rules, None if proof is None else tuple(proof))


def _chain(rng: Random, who: str, path: list[str], side: list[str]) -> tuple[list[str], list[str]]:
    chain, facts = [], [f"{who} is {path[0]}."]
    for above, below, extra in zip(path, path[1:], side, strict=False):
        if rng.random() < 0.5:
            chain.append(f"If someone is {above} and {extra} then they are {below}.")
            facts.append(f"{who} is {extra}.")
        else:
            chain.append(f"If someone is {above} then they are {below}.")
    return chain, facts


def _distractor(rng: Random, who: str, path: list[str], rest: list[str]) -> str:
    kind = rng.random()
    if kind < 0.45:
        other = rng.choice([name for name in PEOPLE if name != who])
        return f"{other} is {rng.choice([*path, *rest])}."
    a, b, c = rng.sample(rest, 3)
    if kind < 0.6:
        return f"If someone is {a} and {b} then they are {rng.choice(path[1:])}."
    return f"If someone is {a} then they are {c}." if kind < 0.8 else f"If someone is {a} and {b} then they are {c}."
