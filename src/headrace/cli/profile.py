"""Where the time of one request goes: the engine's own marks against the caller's clock."""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headrace.cli.load import WORDS
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.engine.engine import Engine
    from headrace.spec.events import StepEvent


@dataclass(frozen=True, slots=True)
class Share:
    part: str
    seconds: float
    share: float


def profile(engine: Engine, prompt_words: int, new_tokens: int, seed: int) -> dict[str, Any]:
    """One greedy request alone, from text to text. Parts of the decode steps, of which `python_share` is
    all that is no kernel, and of the whole request, of which `attributed` is the share that a part names.
    """
    text = prompt(prompt_words, seed)
    events: list[StepEvent] = []
    engine.kernel_seconds()
    stop_listening = engine.events.listen(events.append)
    began = time.perf_counter()
    adapter = next(iter(engine.adapters), None)
    with engine.open_now(text, sampling=Sampling(temperature=0), adapter=adapter) as sequence:
        opened = time.perf_counter()
        sequence.extend(Stop(tokens=1, ignore_eos=True)).result()
        engine.kernel_seconds()
        prefilled, before = time.perf_counter(), len(events)
        sequence.extend(Stop(tokens=new_tokens - 1, ignore_eos=True)).result()
        ended = time.perf_counter()
    kernels = engine.kernel_seconds()
    stop_listening()
    decode = parts_of(events[before:], kernels, ended - prefilled)
    prefill = sum(event.schedule_seconds + event.run_seconds + event.sample_seconds for event in events[:before])
    request = {"tokenise and open": opened - began, "prefill": prefill, **decode}
    del request["between steps"]
    wall = ended - began
    return {
        "prompt_words": prompt_words,
        "new_tokens": new_tokens,
        "decode": [asdict(share) for share in shares(decode, ended - prefilled)],
        "python_share": 1 - sum(kernels.values()) / (ended - prefilled),
        "request": [asdict(share) for share in shares(request, wall)],
        "attributed": sum(request.values()) / wall,
    }


def prompt(words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def parts_of(events: list[StepEvent], kernels: dict[str, float], wall: float) -> dict[str, float]:
    """Seconds by part; what the clock shows beyond the steps is spent between them: waking readers, taking commands.

    Where `kernels` are not known apart, they are one part with the backend around them.
    """
    run, sample = sum(e.run_seconds for e in events), sum(e.sample_seconds for e in events)
    text, schedule = sum(e.text_seconds for e in events), sum(e.schedule_seconds for e in events)
    return {
        "schedule": schedule,
        **{f"kernels: {kind}": seconds for kind, seconds in kernels.items()},
        "backend around the kernels" if kernels else "kernels and backend": run - sum(kernels.values()),
        "sample": sample - text,
        "detokenise": text,
        "between steps": wall - schedule - run - sample,
    }


def shares(parts: dict[str, float], wall: float) -> list[Share]:
    return [Share(part, seconds, seconds / wall) for part, seconds in parts.items()]


def table(parts: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(part["part"], f"{1e3 * part['seconds']:.2f}", f"{100 * part['share']:.1f}") for part in parts]
