"""What `run` and `chat` share: an engine with its progress bar, sampling flags, the closing figures."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from headrace.cli.show import note, progress_bars
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from headrace.engine.answer import Step
    from headrace.engine.surface import Surface

Progress: TypeAlias = Callable[[str, int, int], None] | None
DEFAULT_MODEL = "smollm2-135m"
MOST_SEED = 2**63 - 1


def seed_in_range(seed: int | None) -> int | None:
    if seed is not None and not 0 <= seed <= MOST_SEED:
        raise InvalidRequest(f"--seed is {seed}; give a whole number in 0 … {MOST_SEED}.", "seed")
    return seed


def checked_text(text: str) -> str:
    """Text from outside: Python marks bytes that are not UTF-8 by lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest("The text is not valid UTF-8; convert it to UTF-8 first.") from None
    return text


def decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("The input is not valid UTF-8; convert it to UTF-8 first.") from None


MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", min=0, help="Most new tokens.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy: always the likeliest token.")]
TopK = Annotated[int, typer.Option(help="Draw from the k likeliest tokens only; 0 is off.")]
TopP = Annotated[float, typer.Option(help="Draw from the likeliest tokens that hold this much probability.")]
MinP = Annotated[float, typer.Option(help="Drop tokens less likely than this share of the likeliest.")]
RepetitionPenalty = Annotated[float, typer.Option(help="Above 1: tokens that already occurred become less likely.")]
StopText = Annotated[list[str], typer.Option("--stop", help="End the answer before this text; may be repeated.")]
Seed = Annotated[
    int | None,
    typer.Option(callback=seed_in_range, help="The same seed draws the same tokens; drawn and echoed if omitted."),
]
AdapterScale = Annotated[float, typer.Option(help="How strongly the adapter acts; 0 is the model without it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ModelName = Annotated[str, typer.Argument(help="Catalogue name, path of a .gguf file or model folder, or hub id.")]


def sampling_of(temperature: float, top_k: int, top_p: float, min_p: float, repetition_penalty: float) -> Sampling:
    return Sampling(temperature, top_k, top_p, min_p, repetition_penalty)


def stop_of(max_tokens: int, text: list[str], ignore_eos: bool = False) -> Stop:
    return Stop(tokens=max_tokens, text=tuple(map(checked_text, text)), ignore_eos=ignore_eos)


def adapter_of(options: EngineOptions, scale: float) -> dict[str, Any]:
    """What `open` is told of the one adapter that an answer uses. Raises InvalidRequest for more than one."""
    names = list(options.adapter_folders)
    if len(names) > 1:
        raise InvalidRequest(f"--adapter is given {len(names)} times, but an answer uses one; give one.", "adapter")
    if not names and scale != 1:
        raise InvalidRequest("--adapter-scale is for an adapter; add --adapter NAME=FOLDER.", "adapter_scale")
    return {"adapter": names[0], "adapter_scale": scale} if names else {}


@contextmanager
def loaded_engine(model: str, options: EngineOptions, quiet: bool = False, remote: bool = False) -> Iterator[Surface]:
    """Pulls the model where needed, loads it, with `remote` in a process of its own, and closes it afterwards."""
    check_backend(options)
    with progress_bars(quiet) as report:
        engine = _start_remote(model, options, report) if remote else _start(model, options, report)
    try:
        tell_shorter_context(engine, options.context)
        yield engine
    finally:
        engine.close()


def tell_shorter_context(engine: Surface, asked: int | None) -> None:
    """A context that is cut is said to be."""
    if asked is None or asked <= engine.context:
        return
    trained = engine.spec.context
    why = f"{engine.model_name} was made for {trained}" if engine.context == trained else "--state-memory holds no more"
    note(f"--context {asked} becomes {engine.context} tokens: {why}.")


def check_backend(options: EngineOptions) -> None:
    """Raises InvalidRequest for an option that the chosen backend would drop in silence."""
    from headrace.backends.select import choose_backend

    others = {"native": ("reference", ("dtype",)), "reference": ("native", ("activations", "state_type", "weights"))}
    other, names = others[choose_backend(options.backend)]
    for name in names:
        if getattr(options, name) != getattr(EngineOptions(), name):
            flag = f"--{name.replace('_', '-')}"
            raise InvalidRequest(f"{flag} is for the {other} backend; leave it out or add --backend {other}.", name)


def _start(model: str, options: EngineOptions, report: Progress) -> Surface:
    from headrace.engine.engine import Engine

    return Engine.load(model, options, report)


def _start_remote(model: str, options: EngineOptions, report: Progress) -> Surface:
    """Loads in a thread that takes no Ctrl-C, and so does the process that it starts; this one stays free for it."""
    import multiprocessing
    from multiprocessing import resource_tracker

    from headrace.engine.remote import RemoteEngine

    # Its start unblocks the signals of whichever thread starts it: later, that would be the one that loads.
    resource_tracker.ensure_running()
    loaded: Future[Surface] = Future()

    def load() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            loaded.set_result(RemoteEngine(model, options, report))
        except BaseException as error:
            loaded.set_exception(error)

    others = set(multiprocessing.active_children())
    thread = threading.Thread(target=load, name="headrace-load", daemon=True)
    thread.start()
    try:
        return loaded.result()
    except KeyboardInterrupt:
        _stop_loading(thread, others)
        note("Interrupted while the model was loading.")
        raise


def _stop_loading(thread: threading.Thread, others: set[BaseProcess]) -> None:
    """Kills the process that loads, which hears no milder signal, and gives the thread a moment to see it."""
    import multiprocessing

    for _ in range(20):
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        thread.join(0.05)
        if not thread.is_alive():
            return


def usage(step: Step, prompt_tokens: int) -> dict[str, int]:
    new = len(step.token_ids)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new,
        "total_tokens": prompt_tokens + new,
        "cached_tokens": step.cached_tokens,
    }


def timing(step: Step) -> dict[str, float | None]:
    """Seconds from the request's start; tokens a second are of the tokens after the first."""
    after_first = step.seconds - step.first_token_seconds
    more = len(step.token_ids) - 1
    rate = more / after_first if more > 0 and after_first > 0 else None
    return {
        "queue_seconds": step.queue_seconds,
        "first_token_seconds": step.first_token_seconds,
        "seconds": step.seconds,
        "tokens_per_second": rate,
    }


def as_json(engine: Surface, seed: int, step: Step, prompt_tokens: int) -> dict[str, Any]:
    """`prompt_tokens`: all tokens that stood before the answer."""
    return {
        "text": step.text,
        "token_ids": list(step.token_ids),
        "finish_reason": step.finish_reason,
        "usage": usage(step, prompt_tokens),
        "timing": timing(step),
        "seed": seed,
        "model": engine.model_name,
        "guarantees": asdict(engine.guarantees),
    }


def context_is_full(engine: Surface, step: Step, prompt_tokens: int) -> bool:
    return step.finish_reason == "length" and prompt_tokens + len(step.token_ids) >= engine.context


def ending(engine: Surface, step: Step, prompt_tokens: int) -> str:
    """Why the answer ended, where that was not the model's own end of it."""
    if context_is_full(engine, step, prompt_tokens):
        return f"cut: the context of {engine.context} tokens is full{_longer_by(engine)}"
    if step.finish_reason == "length":
        return f"cut at {len(step.token_ids)} tokens (--max-tokens)"
    if isinstance(step.stop, str):
        return f"ended before {step.stop!r} (--stop)"
    return "cancelled" if step.finish_reason == "cancelled" else ""


def _longer_by(engine: Surface) -> str:
    """The flag that limits the context below what the model was trained for."""
    trained = engine.spec.context
    if engine.context < min(engine.options.context or trained, trained):
        return " (--state-memory)"
    return " (--context)" if engine.context < trained else ""


def figures(engine: Surface, step: Step, prompt_tokens: int, seed: int | None = None) -> str:
    """The closing line: tokens, times, pages, memory, backend; the seed of an answer that was drawn."""
    from headrace.spec.ledger import mib

    stats, rate = engine.stats(), timing(step)["tokens_per_second"]
    pages = max((event.pages_used for event in engine.events.recent()), default=0)
    mapped = sum(item.bytes for item in engine.ledger.mapped)
    parts = [
        ending(engine, step, prompt_tokens),
        f"{prompt_tokens} prompt + {len(step.token_ids)} new tokens",
        f"first token {step.first_token_seconds:.2f} s",
        f"{rate:.1f} tokens/s" if rate else "",
        f"seed {seed}" if seed is not None else "",
        f"{pages} of {stats['pages_total']} pages",
        f"memory {mib(engine.ledger.total)}" + (f" + {mib(mapped)} file map" if mapped else ""),
        f"{engine.guarantees.backend} ({engine.guarantees.profile})",
    ]
    return " · ".join(part for part in parts if part)
