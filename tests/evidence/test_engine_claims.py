"""Claims of the engine in their quick size on the tiny model, and the instruments they rest on."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from headrace.evidence import workload
from headrace.evidence.claims import flover, procbench, sarathi
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.watch import Watch
from headrace.reason.tasks import fixtures
from headrace.spec.batch import Batch, Row
from headrace.spec.claim import Evidence
from headrace.spec.events import StepEvent


def judge(found: Evidence, number: int) -> dict[str, str]:
    assert tuple(clause.text for clause in found.clauses) == system(number).clauses
    assert found.null_run.status == "passed", found.null_run.figure
    assert not [clause for clause in found.clauses if clause.status == "failed"]
    return {clause.text: clause.status for clause in found.clauses}


def test_continuous_batching_quick() -> None:
    status = judge(flover.run("quick"), 20)
    assert [status[text] for text in (flover.ALONE, flover.CONTIGUOUS, flover.FREED)] == ["passed"] * 3
    assert status[flover.STATIC] == status[flover.INSTANCES] == "open"


def test_chunked_prefill_quick() -> None:
    status = judge(sarathi.run("quick"), 18)
    assert [status[text] for text in (sarathi.SAME, sarathi.NO_SKIP, sarathi.BUDGET)] == ["passed"] * 3
    assert status[sarathi.SIMULATED] == status[sarathi.BUBBLES] == "open"


def test_measured_ratios_come_from_equal_work() -> None:
    """The instrument only: what it finds on a busy machine is not judged."""
    with Stage.tiny() as stage:
        requests = workload.draw_requests(Random(5), 6, stage.vocab, (4, 20), (2, 12), gap=0.002)
        with Stage.tiny() as second, stage.engine() as engine, second.engine() as other:
            flowing = workload.as_they_come(engine, requests)
            static = workload.in_static_batches(engine, requests, 3)
            pair = workload.one_at_a_time([engine, other], requests)
        clauses, numbers = flover.measure(stage, "quick", 2, 3, 4)
    assert flowing.tokens == static.tokens == pair.tokens
    assert all(len(tokens) == request.new for tokens, request in zip(flowing.tokens, requests, strict=True))
    assert min(flowing.throughput, static.throughput, pair.throughput) > 0
    assert [clause.text for clause in clauses] == [flover.STATIC, flover.INSTANCES]
    assert len(numbers["static_t_ratios"]) == 2


def test_procbench_mutant_and_exact_clauses() -> None:
    clauses, numbers = procbench.check_exact((1, 4, 9), 2)
    assert [clause.status for clause in clauses] == ["passed"] * 4 and numbers["families"] >= 12
    slipping, _ = procbench.check_exact((1, 4), 1, slip=1)
    assert [clause.status for clause in slipping] == ["passed", "failed", "passed", "passed"]


def test_a_falling_curve_is_told_from_a_flat_one() -> None:
    def curve(*levels: int) -> procbench.Curve:
        scores = {2**i: [procbench.Score(n, n / 4, n == 4, n == 4)] * 10 for i, n in enumerate(levels)}
        return procbench.Curve("m", scores)

    judged = {levels: procbench.falls("F.", curve(*levels)) for levels in ((4, 2, 1), (2, 2, 2), (1, 2, 4))}
    assert [clause.status for clause in judged.values()] == ["passed", "failed", "failed"]
    assert "-0.375 [-0.375, -0.375]" in judged[4, 2, 1].figure
    assert curve(4, 4, 0).slope(most=2)[0] == 0 > curve(4, 4, 0).slope()[0]


def test_a_quick_run_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    clause = procbench.sums_clause("quick", 2, {})
    assert clause.status == "open" and "not trained" in clause.figure
    assert not any(tmp_path.rglob("*.lock"))


def test_models_trained_here_are_followed_line_by_line() -> None:
    if not all(fixtures.ready(name) for name in procbench.FIXTURES):
        pytest.skip("needs the fixtures of LM-T, which headrace.reason.tasks.fixtures.fixture trains")
    kept: dict[str, procbench.Curve] = {}
    assert procbench.sums_clause("quick", 6, kept).check == "effect"
    for curve in kept.values():
        assert tuple(curve.scores) == procbench.STEPS and curve.prefix()[0] > 0.5 > curve.prefix()[-1]


def batch(step: int, *rows: tuple[int, int, int]) -> Batch:
    return Batch(step, tuple(Row(s, "decode", start, (0,) * count, ((),)) for s, start, count in rows))


def event(step: int, pages: int, *rows: tuple[int, str, int], at: float = 0.0) -> StepEvent:
    tokens = [sum(n for _, phase, n in rows if (phase == "decode") == decode) for decode in (True, False)]
    return StepEvent(step, 0, tokens[0], tokens[1], 0, 0, 1, 0, pages, 0, 9, 0, 0, 0, 0, 0, 0, 0, at=at, sequences=rows)


def test_watch_finds_gaps_repeats_and_rows_of_the_dead() -> None:
    watch = Watch()
    watch.on_batch(batch(1, (1, 0, 4), (2, 0, 3)))
    watch.on_batch(batch(2, (1, 4, 1)))
    assert not watch.gaps
    watch.on_batch(batch(3, (1, 6, 1)))
    watch.on_batch(batch(4, (2, 3, 1), (2, 4, 1)))
    assert len(watch.gaps) == 2
    watch.steps = 4
    watch.release(2)
    watch.on_batch(batch(5, (2, 5, 1)))
    assert len(watch.gaps) == 2
    watch.on_batch(batch(6, (2, 6, 1)))
    assert len(watch.gaps) == 3


def test_watch_finds_one_leaked_page() -> None:
    watch = Watch()
    hear = SimpleNamespace(events=SimpleNamespace(listen=lambda listener: listener))
    listener = watch.attach(hear)  # type: ignore[arg-type]
    watch.on_batch(batch(1, (1, 0, 17), (2, 0, 16)))
    listener(event(1, 3))
    watch.release(2)
    listener(event(2, 3))
    assert not watch.leaks
    listener(event(3, 3))
    assert len(watch.leaks) == 1
    listener(event(4, 2))
    assert len(watch.leaks) == 1


def test_decode_stalls_count_skips_and_work() -> None:
    even = [event(1, 0, (1, "prefill", 5)), event(2, 0, (1, "decode", 1), (2, "prefill", 7), at=1.0)]
    assert sarathi.decode_stalls(even) == (7, 1.0, 0)
    late = [*even, event(3, 0, (2, "prefill", 30), at=2.0), event(4, 0, (1, "decode", 1), (2, "decode", 1), at=5.0)]
    assert sarathi.decode_stalls(late) == (31, 4.0, 1)
