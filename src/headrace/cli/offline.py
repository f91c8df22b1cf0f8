"""Throughput of the engine alone: prefill and decode measured apart, from the engine's own step events."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.engine.sequence import SequenceHandle
    from headrace.engine.surface import Surface
    from headrace.spec.events import StepEvent


@dataclass(frozen=True, slots=True)
class Load:
    """`concurrency` prompts of `prompt_tokens` random tokens, `new_tokens` answers each, `repeats` times."""

    concurrency: int
    prompt_tokens: int
    new_tokens: int
    repeats: int
    seed: int


@dataclass(frozen=True, slots=True)
class Round:
    """Tokens and seconds of one round: the engine's own, and the caller's wall time."""

    prefill_tokens: int
    prefill_seconds: float
    decode_tokens: int
    decode_seconds: float
    wall_seconds: float


def measure(engine: Surface, load: Load) -> dict[str, Any]:
    """Medians over the rounds, tokens a second, with every round's figures beside them."""
    rounds = [one_round(engine, load, number) for number in range(load.repeats)]
    prefill = [r.prefill_tokens / r.prefill_seconds for r in rounds]
    decode = [r.decode_tokens / r.decode_seconds for r in rounds if r.decode_seconds]
    overall = [load.concurrency * load.new_tokens / r.wall_seconds for r in rounds]
    return {
        **asdict(load),
        "prefill_tokens_per_second": statistics.median(prefill),
        "decode_tokens_per_second": statistics.median(decode) if decode else None,
        "output_tokens_per_second": statistics.median(overall),
        "rounds": [asdict(r) for r in rounds],
    }


def one_round(engine: Surface, load: Load, number: int) -> Round:
    """First every prompt with its first token, then all other tokens: no step mixes the two phases."""
    draw = random.Random(f"{load.seed}/{load.concurrency}/{number}")
    sampling, began = Sampling(temperature=0), time.perf_counter()
    adapters = itertools.cycle(engine.adapters or (None,))
    sequences = [
        engine.open_now(prompt, sampling=sampling, adapter=adapter)
        for prompt, adapter in zip(prompts(engine, load, draw), adapters, strict=False)
    ]
    events: list[StepEvent] = []
    stop_listening = engine.events.listen(events.append)
    try:
        extend_all(sequences, 1)
        prefill, events[:] = list(events), []
        if load.new_tokens > 1:
            extend_all(sequences, load.new_tokens - 1)
    finally:
        stop_listening()
        for sequence in sequences:
            sequence.drop()
    wall = time.perf_counter() - began
    prefill_tokens = load.concurrency * load.prompt_tokens
    decode_tokens = load.concurrency * (load.new_tokens - 1)
    return Round(prefill_tokens, seconds(prefill), decode_tokens, seconds(events), wall)


def extend_all(sequences: Sequence[SequenceHandle], tokens: int) -> None:
    stop = Stop(tokens=tokens, ignore_eos=True)
    for extension in [sequence.extend(stop) for sequence in sequences]:
        extension.result()


def prompts(engine: Surface, load: Load, draw: random.Random) -> list[list[int]]:
    """Random tokens, other ones in every prompt, so that no cached prefix helps."""
    vocab = engine.spec.vocab
    return [[draw.randrange(vocab) for _ in range(load.prompt_tokens)] for _ in range(load.concurrency)]


def seconds(events: Iterable[StepEvent]) -> float:
    return sum(event.schedule_seconds + event.run_seconds + event.sample_seconds for event in events)


def table(results: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    keys = ("prefill_tokens_per_second", "decode_tokens_per_second", "output_tokens_per_second")
    return [(str(r["concurrency"]), *(figure(r[key]) for key in keys)) for r in results]
