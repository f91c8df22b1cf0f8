"""System 20, Flover: requests that arrive at any time share every step, and leave at once."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from headrace.engine.engine import Engine
from headrace.evidence import workload
from headrace.evidence.stage import CrossTalk, Stage, View
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, above_one, judged, left_open, mutant_run
from headrace.evidence.watch import Watch
from headrace.evidence.workload import Request
from headrace.reason.intervals import ratio_interval
from headrace.schedule.core import Core
from headrace.spec.claim import Claim, Clause, Evidence, Size

ROW = system(20)
ALONE, CONTIGUOUS, FREED, STATIC, INSTANCES = ROW.clauses


@dataclass(frozen=True, slots=True)
class Sizes:
    """`fuzz`: rounds on the tiny model. `arrive`: requests a round. `real`: requests of the stage's own model."""

    fuzz: int
    arrive: int
    real: int
    rounds: int
    batch: int = 16


SIZES: dict[Size, Sizes] = {"quick": Sizes(2, 12, 0, 0), "full": Sizes(12, 32, 8, 9)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    with Stage.tiny() as tiny:
        exact, numbers = check_exact(tiny, sizes.fuzz, sizes.arrive)
        null_run = mutants(tiny, sizes.arrive)
    effects = [left_open(STATIC, NOT_IN_QUICK), left_open(INSTANCES, NOT_IN_QUICK)]
    interval = None
    if sizes.rounds:
        exact, effects, more = _on_the_real_model(exact, sizes)
        numbers |= more
        interval = (float(more["static_throughput_low"]), float(more["static_throughput_high"]))
    return Evidence(CLAIM.id, (*exact, *effects), null_run, numbers, interval, "", size)


def check_exact(
    stage: Stage, rounds: int, arrive: int, view: type[View] = View, kind: type[Engine] = Engine
) -> tuple[list[Clause], dict[str, float | int | str | list[float]]]:
    """The three exact clauses under fuzzed arrivals, sampling and cancellation."""
    wrong: list[str] = []
    watches, tokens, cancelled = [], 0, 0
    for number in range(rounds):
        rng = Random(number)
        requests = workload.draw_requests(rng, arrive, stage.vocab, (1, 90), (1, 40), gap=0.004, leave=0.3)
        with stage.engine() as engine:
            want = workload.alone(engine, requests)
        got, watch = crowd(stage, requests, 48, view, kind)
        watches.append(watch)
        wrong += [f"round {number}" for w, g in zip(want, got, strict=True) if w[: len(g)] != g]
        tokens += sum(map(len, got))
        cancelled += sum(request.leaves_after is not None for request in requests)
    gaps, leaks = [g for w in watches for g in w.gaps], [leak for w in watches for leak in w.leaks]
    steps, events = sum(w.steps for w in watches), sum(len(w.events) for w in watches)
    most = max(event.running for watch in watches for event in watch.events)
    counts = f"{rounds * arrive} requests, {cancelled} of them cancelled, up to {most} at once"
    clauses = [
        judged(ALONE, not wrong, f"{len(wrong)} requests differ of {counts}, {tokens} tokens compared"),
        judged(CONTIGUOUS, not gaps, f"{len(gaps)} faults in {steps} steps{_first(gaps)}"),
        judged(FREED, not leaks, f"{len(leaks)} faults in {events} steps{_first(leaks)}"),
    ]
    return clauses, {"requests": rounds * arrive, "cancelled": cancelled, "tokens": tokens, "steps": steps}


def crowd(
    stage: Stage, requests: list[Request], step_tokens: int, view: type[View] = View, kind: type[Engine] = Engine
) -> tuple[list[list[int]], Watch]:
    """Serves the requests as they come under a Watch; what is left in use at the end counts as a leak."""
    watch = Watch()
    with stage.engine(step_tokens, lambda inner: watch.view()(view(inner)), kind) as engine:
        watch.attach(engine)
        served = workload.as_they_come(engine, requests, watch)
        engine.check()
        held = int(engine.stats()["pages_used"])
    if held:
        watch.leaks.append(f"{held} pages in use after all requests had left")
    return served.tokens, watch


def mutants(stage: Stage, arrive: int) -> Clause:
    """Two engines broken on purpose: rows that read their neighbour's logits, and drops that keep their pages."""
    mixed, _ = check_exact(stage, 1, arrive, view=CrossTalk)
    leaky, _ = check_exact(stage, 1, arrive, kind=Leaky)
    caught = mutant_run("Mutants: rows that hear their neighbours; drops that keep their pages", [mixed[0], leaky[2]])
    both = mixed[0].status == leaky[2].status == "failed"
    return Clause(caught.text, "passed" if both else "failed", caught.figure)


class Leaky(Engine):
    """Forgets a dropped sequence without giving back one of its pages."""

    def _drop_now(self, core: Core, id: int) -> None:
        if id in core.sequences and core.sequences[id].pages:
            core.store.share(core.sequences[id].pages[-1:])
        super()._drop_now(core, id)

    def check(self) -> None:
        """The leak is for the claim to find."""


def _on_the_real_model(exact: list[Clause], sizes: Sizes) -> tuple[list[Clause], list[Clause], dict]:
    """The token clause again on SmolLM2, and the two effect clauses."""
    with Stage.for_size("full", threads=2) as stage:
        requests = workload.draw_requests(Random(7), sizes.real, stage.vocab, (4, 60), (4, 24), gap=0.2)
        with stage.engine() as engine:
            want = workload.alone(engine, requests)
        got, watch = crowd(stage, requests, 48)
        wrong = sum(w != g for w, g in zip(want, got, strict=True))
        figure = f"{exact[0].figure} (tiny model); SmolLM2: {wrong} of {sizes.real} differ"
        holds = exact[0].status == "passed" and not wrong and not watch.gaps and not watch.leaks
        first = judged(ALONE, holds, figure)
        effects, numbers = measure(stage, "full", sizes.rounds, sizes.batch)
    return [first, *exact[1:]], effects, numbers


def measure(stage: Stage, size: Size, rounds: int, batch: int, count: int = 8) -> tuple[list[Clause], dict]:
    """Ratios of throughput and latency, the three ways in alternation within each round, on fresh requests."""
    ratios: dict[str, list[float]] = {name: [] for name in ("static_t", "static_l", "instances_t", "instances_l")}
    with Stage.for_size(size, threads=1) as second, stage.engine() as shared, second.engine() as other:
        for number in range(rounds):
            rng = Random(100 + number)
            requests = workload.draw_requests(rng, count, stage.vocab, (4, 40), (2, 24), gap=0.3)
            flowing = workload.as_they_come(shared, requests)
            static = workload.in_static_batches(shared, requests, batch)
            instances = workload.one_at_a_time([shared, other], requests)
            for name, rival in (("static", static), ("instances", instances)):
                ratios[f"{name}_t"].append(flowing.throughput / rival.throughput)
                ratios[f"{name}_l"].append(rival.latency / flowing.latency)
    found = {name: ratio_interval(values) for name, values in ratios.items()}
    note = f"{rounds} rounds of {count} requests in alternation"
    numerics = f"numerics {stage.executor.guarantees.profile}"
    clauses = [
        above_one(STATIC, _pair(found, "static"), f"{note}, static batches of what has arrived, at most {batch}"),
        above_one(INSTANCES, _pair(found, "instances"), f"{note}, 2 instances; {numerics}"),
    ]
    low, high = found["static_t"][1]
    numbers = {"static_throughput_low": low, "static_throughput_high": high}
    return clauses, numbers | {f"{name}_ratios": values for name, values in ratios.items()}


def _pair(found: dict[str, tuple[float, tuple[float, float]]], name: str) -> dict:
    return {"throughput": found[f"{name}_t"], "mean latency, rival's over ours,": found[f"{name}_l"]}


def _first(faults: list[str]) -> str:
    return f", first: {faults[0]}" if faults else ""


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Continuous batching gives every request the tokens it gets alone, frees memory at once, and is faster.",
    "Static batches on the same engine, and two concurrent instances that each serve one request at a time.",
    ("exact", "effect"),
    "About 6 minutes on 2 busy cores for a full run; equal requests, arrivals and model for all three. Nine rounds of 8"
    " requests: a first run of four rounds of 10 gave 1.63x [0.95, 2.77] against static batches, too wide to tell.",
    run,
)
