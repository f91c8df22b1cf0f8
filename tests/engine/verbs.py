"""A toy engine and its oracle, for tests of the verbs."""

from __future__ import annotations

import threading

from engine.canary import CanaryExecutor, ToyTokenizer, oracle_logits
from headrace.engine.engine import Engine
from headrace.engine.sampling import NoiseKey, draw
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

WAIT = 10
HOT = Sampling(temperature=1.5)
GREEDY = Sampling(temperature=0)
PROMPT = [5, 6, 7, 8, 9]


def made(pages: int = 32, tokenizer: ToyTokenizer | None = None, **how) -> tuple[Engine, CanaryExecutor]:
    executor = CanaryExecutor(pages, **{k: how.pop(k) for k in ("tokens", "logits", "context") if k in how})
    return Engine(executor, tokenizer, EngineOptions(**how)), executor  # type: ignore[arg-type]


def stop(count: int, **how) -> Stop:
    return Stop(tokens=count, **({"ignore_eos": True} | how))


def oracle(handle, tokens: list[int], count: int, sampling: Sampling = HOT) -> list[int]:
    tokens, start = list(tokens), len(tokens)
    for _ in range(count):
        noise = NoiseKey(handle.seed, handle._path)
        tokens.append(draw(oracle_logits(tokens), sampling, noise, tokens, handle.prompt_tokens))
    return tokens[start:]


def held(engine: Engine, step: threading.Event) -> threading.Event:
    """Makes the executor wait for `step` in its next batch; the event returned says that it does."""
    entered, submit = threading.Event(), engine._executor.submit

    def wait_first(batch):
        entered.set()
        assert step.wait(WAIT)
        return submit(batch)

    engine._executor.submit = wait_first  # type: ignore[method-assign]
    return entered
