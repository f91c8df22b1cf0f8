"""DeepConf ends where its attempts agree, by weight, and in the order in which they were started."""

from __future__ import annotations

import asyncio

import pytest

from headrace.evidence.scripted import END, scripted_engine
from headrace.reason.answers import Number
from headrace.reason.solve import Order, Result, solve
from headrace.reason.task import Task
from headrace.spec.sampling import Sampling, Stop


def answered(sevens: float, strategy: str, unread: float = 0.0, seed: int = 0) -> Result:
    """A model that answers 7 or 8, or, with some chance, nothing that can be read."""

    def chances(text: str) -> dict[str, float]:
        return {"7": sevens, "8": 1 - sevens - unread, "x": unread} if text.endswith("? ") else {END: 1.0}

    chances = _positive(chances)
    with scripted_engine(chances) as engine:
        task = Task("What? ", Number(), ending=Stop(tokens=4), chat=False)
        return asyncio.run(solve(engine, task, Order(strategy, seed=seed, sampling=Sampling(temperature=1.0))))


def _positive(chances):
    return lambda text: {letter: chance for letter, chance in chances(text).items() if chance > 0}


def test_a_consensus_of_the_warm_up_ends_it() -> None:
    found = answered(1.0, "deepconf(n=12, warm=3)")
    assert [candidate.origin for candidate in found.candidates] == ["warm"] * 3 and found.answer == "7"


def test_a_warm_up_of_one_agrees_with_itself() -> None:
    assert len(answered(0.5, "deepconf(n=12, warm=1)").candidates) == 1


def test_without_a_consensus_all_attempts_are_made() -> None:
    found = answered(0.5, "deepconf(n=12, warm=4, keep=1.0)")
    assert len(found.candidates) == 12 and {candidate.answer for candidate in found.candidates} == {"7", "8"}


@pytest.mark.parametrize("seed", range(4))
def test_it_ends_after_the_first_wave_whose_votes_agree(seed: int) -> None:
    """The share after every wave, recomputed from the candidates: it is reached after the last one alone."""
    found = answered(0.75, "deepconf(n=40, warm=4, keep=1.0, consensus=0.7)", seed=seed)
    shares = []
    for count in range(4, len(found.candidates) + 1, 4):
        weights = {answer: 0.0 for answer in ("7", "8")}
        for candidate in found.candidates[:count]:
            weights[candidate.answer or ""] += candidate.weight
        shares.append(max(weights.values()) / sum(weights.values()))
    assert shares[-1] >= 0.7 or len(found.candidates) == 40
    assert all(share < 0.7 for share in shares[:-1])


def test_attempts_without_an_answer_are_no_consensus() -> None:
    found = answered(0.3, "deepconf(n=12, warm=4, keep=1.0)", unread=0.7)
    assert len(found.candidates) == 12
