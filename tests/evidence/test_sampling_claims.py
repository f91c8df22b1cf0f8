"""Claims of repeated sampling and particles in their quick size, and that each clause can fail."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from headrace.engine.engine import Engine
from headrace.evidence.claims import large_language_monkeys as monkeys
from headrace.evidence.claims import particle_its as particles
from headrace.evidence.claims.large_language_monkeys import Pool
from headrace.evidence.scripted import adder, among, scripted_engine, scripted_stage
from headrace.evidence.sharing import Separate
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import every_mutant, judged
from headrace.reason.statistics import maj_at_k
from headrace.reason.tasks.programs import Puzzle, puzzles
from headrace.reason.tasks.registry import items
from headrace.spec.claim import Evidence

WRONG = ("x*0", "x*0+1", "f(")


def judge(found: Evidence, number: int) -> dict[str, str]:
    assert tuple(clause.text for clause in found.clauses) == system(number).clauses
    assert found.null_run.status == "passed", found.null_run.figure
    assert not [clause for clause in found.clauses if clause.status == "failed"]
    return {clause.text: clause.status for clause in found.clauses}


def test_repeated_sampling_quick() -> None:
    status = judge(monkeys.run("quick"), 67)
    assert status[monkeys.BRUTE] == status[monkeys.SHARED] == "passed"
    assert status[monkeys.FORECAST] == status[monkeys.PLATEAU] == "open"


def test_particles_quick() -> None:
    status = judge(particles.run("quick"), 64)
    assert status[particles.EXACT] == status[particles.SHARE] == "passed" and status[particles.BEATS] == "open"


def test_every_mutant_has_to_be_caught() -> None:
    caught, unnoticed = judged("A.", False, "1"), judged("B.", True, "0")
    assert every_mutant("m", [caught, caught]).status == "passed"
    assert every_mutant("m", [caught, unnoticed]).status == "failed"


# -- repeated sampling -----------------------------------------------------------------------------


def planted(rates: list[float], count: int, wrong: tuple[str, ...] = WRONG, later: float = 1.0) -> Pool:
    """Right with the question's rate, after the first SEEN samples with `later` times it, else one of the wrong."""
    rng, asked = Random(1), puzzles(3, len(rates))

    def one(puzzle: Puzzle, rate: float, place: int) -> str:
        right = rng.random() < rate * (1.0 if place < monkeys.SEEN else later)
        return puzzle.program if right else rng.choice(wrong)

    return Pool(asked, [[one(p, rate, n) for n in range(count)] for p, rate in zip(asked, rates, strict=True)])


def beta(count: int) -> list[float]:
    rng = Random(2)
    return [rng.betavariate(0.4, 4) for _ in range(count)]


def test_samples_have_the_chances_of_the_model() -> None:
    (puzzle,) = puzzles(2, 1)
    replies = {puzzle.program: 0.25, "x": 0.35, "x*0": 0.25, "x%": 0.15}
    with scripted_engine(lambda text: among(replies, text.rpartition("\n")[2]), pages=1600) as engine:
        (texts,) = monkeys.draw_pool(engine, [puzzle], 400).texts
    assert set(texts) == set(replies)
    for reply, chance in replies.items():
        assert abs(texts.count(reply) / 400 - chance) < 4 * (chance * (1 - chance) / 400) ** 0.5


def test_a_forecast_holds_where_rates_are_beta_and_fails_where_they_change() -> None:
    good, numbers = monkeys.forecast_clause(planted(beta(120), 384))
    assert good.status == "passed", good.figure
    assert numbers["coverage at 1"] < numbers["coverage at 64"] < numbers["coverage at 256"]
    assert all(said in good.figure for said in ("beta 0.", "power-law 0.", "in proof P4"))
    worse, _ = monkeys.forecast_clause(planted(beta(120), 384, later=0.1))
    assert worse.status == "failed" and "beta" in worse.figure and "misses" in worse.figure


def test_a_vote_on_a_plateau_is_told_from_one_that_rises() -> None:
    rare = planted([0.02] * 20 + [0.9] * 20, 256, wrong=WRONG[:1])
    clause, (low, _), numbers = monkeys.plateau_clause(rare)
    assert clause.status == "passed" and low > 0, clause.figure
    assert numbers["vote"] == pytest.approx([0.5] * 3, abs=0.01) and numbers["verifier"][-1] > 0.95
    rising, _, numbers = monkeys.plateau_clause(planted([0.4] * 40, 256, WRONG[:2]))
    assert rising.status == "failed" and numbers["vote"][2] > numbers["vote"][0] + 0.1


def test_the_vote_is_the_exact_expectation_over_orders() -> None:
    pool = planted([0.3, 0.5], 40)
    for place in range(2):
        keys = [monkeys.values_of(text) for text in pool.texts[place]]
        exact = maj_at_k(keys, pool.puzzles[place].values, 16)
        assert monkeys._voted(pool, place)[0] == pytest.approx(exact, abs=0.25)


def test_shown_tests_are_no_exact_verifier() -> None:
    truth = tuple(range(10))
    pool = Pool([Puzzle("f(0)=0, f(1)=1, f(2)=2, f(3)=3\n", "x", truth)], [["x%4"] * 128 + ["x"] * 128])
    assert monkeys._verified(pool, 0)[2] == 1.0 and monkeys._shown(pool, 0)[2] < 1.0


def test_forks_that_share_nothing_are_counted() -> None:
    with Stage.tiny(pages=400) as tiny:
        prompt = [list(range(3, 40))]
        assert monkeys.counted(tiny, prompt)[0].status == "passed"
        assert monkeys.counted(tiny, prompt, Separate)[0].status == "failed"


# -- particles -------------------------------------------------------------------------------------


def made(ours: list[float], rivals: list[float], questions: int = 200) -> tuple[particles.Table, particles.Numbers]:
    """Tables whose accuracy at each noise is as planted, rivals alike."""
    rng = np.random.default_rng(3)
    names = ("particles", *particles.RIVALS, *particles.OTHERS, "vote")
    found = {
        name: (rng.random((questions, len(ours))) < (ours if name == "particles" else rivals)).astype(float)
        for name in names
    }
    return found, {f"tokens, {name}": 350.0 for name in names}


@pytest.mark.parametrize(
    ("ours", "rivals", "status", "said"),
    [
        ([0.9, 0.9, 0.9, 0.8], [0.8, 0.7, 0.5, 0.3], "passed", "over beam +0"),
        ([0.8, 0.7, 0.5, 0.3], [0.9, 0.9, 0.9, 0.8], "failed", "degrades more"),
        ([0.7, 0.6, 0.5, 0.4], [0.7, 0.6, 0.5, 0.4], "failed", "no difference shown"),
        ([0.9, 0.8, 0.7, 0.6], [0.7, 0.6, 0.5, 0.4], "failed", "beats"),
    ],
)
def test_both_the_gain_and_the_slope_decide(ours: list[float], rivals: list[float], status: str, said: str) -> None:
    found, numbers = made(ours, rivals)
    clause, (low, high) = particles.beats(found, numbers)
    assert clause.status == status and said in clause.figure and low < high
    assert numbers["slope, particles"] == pytest.approx(np.polyfit(range(4), found["particles"].mean(0), 1)[0])


def test_the_table_has_every_strategy_at_every_noise() -> None:
    asked = items("arith:sums(steps=3)", 2)
    with scripted_engine(adder(0.2)) as engine:
        found, numbers = particles.table(engine, asked, (1.0, 2.0))
    assert set(found) == {"particles", *particles.RIVALS, *particles.OTHERS, "vote"}
    assert {rows.shape for rows in found.values()} == {(2, 2)}
    costs = [numbers[f"tokens, {name}"] for name in found]
    assert max(costs) < 1.15 * min(costs) and max(costs) <= 512, "equal tokens"
    with scripted_engine(adder(0.0)) as engine:
        sure, _ = particles.table(engine, asked[:1], (1.0,))
    assert all(rows.all() for rows in sure.values())


@pytest.mark.parametrize(("kind", "status"), [(Engine, "passed"), (Separate, "failed")])
def test_pages_are_shared_by_forks_alone(kind: type[Engine], status: str) -> None:
    with scripted_stage(adder(0.3)) as stage:
        clause, numbers = particles.shares(stage, items(particles.TASK, 2), kind)
    assert clause.status == status and numbers["pages ratio without resampling"] == [1.0] * 2
