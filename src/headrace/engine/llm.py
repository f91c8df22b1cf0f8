"""The offline surface: `LLM.generate`, `chat`, `stream` and `embed` are thin callers of the sequence verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.engine.answer import Step, Token
from headrace.engine.engine import Engine
from headrace.engine.surface import Prompt
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop


@dataclass(frozen=True, slots=True)
class Completion:
    """`steps`: one for each of the n samples. `seed` is the one drawn, where none was given."""

    prompt_tokens: int
    seed: int
    steps: list[Step]

    @property
    def text(self) -> str:
        return self.steps[0].text

    @property
    def token_ids(self) -> list[int]:
        return self.steps[0].token_ids


class LLM:
    """A loaded model in this process. Use it as a context manager, or close it.

    >>> with LLM("smollm2-135m") as llm:
    ...     print(llm.chat([{"role": "user", "content": "Name a river."}]).text)
    """

    def __init__(
        self,
        model: str | Path = "smollm2-135m",
        options: EngineOptions | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.engine = Engine.load(model, options, progress)

    def generate(
        self,
        prompts: Prompt | Sequence[str],
        sampling: Sampling | None = None,
        stop: Stop | None = None,
        n: int = 1,
        seed: int | None = None,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
    ) -> list[Completion]:
        """Completes one prompt (text, token ids) or several texts; all run in one batch."""
        how = {"seed": seed, "adapter": adapter, "adapter_scale": adapter_scale}
        return self._complete([prompts] if _is_one(prompts) else list(prompts), sampling, stop, n, how)  # type: ignore[arg-type, list-item]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling: Sampling | None = None,
        stop: Stop | None = None,
        n: int = 1,
        seed: int | None = None,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
    ) -> Completion:
        """The assistant's next turn, through the model's chat template."""
        if isinstance(messages, str):
            raise InvalidRequest(
                'chat takes messages; give [{"role": "user", "content": …}] or use generate.', "messages"
            )
        how = {"seed": seed, "adapter": adapter, "adapter_scale": adapter_scale}
        return self._complete([messages], sampling, stop, n, how)[0]

    def stream(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        stop: Stop | None = None,
        seed: int | None = None,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
    ) -> Iterator[Token]:
        """Tokens of one completion as they come."""
        with self.engine.open_now(prompt, seed=seed, adapter=adapter, adapter_scale=adapter_scale) as sequence:
            yield from sequence.extend(stop, sampling)

    def embed(self, texts: Sequence[Prompt]) -> np.ndarray:
        """Mean of the last hidden states, L2-normalised: [n, hidden] float32."""
        means: list[np.ndarray] = []
        for some in _windows(texts, self.engine.options.queue):
            with ExitStack() as opened:
                sequences = [opened.enter_context(self.engine.open_now(text)) for text in some]
                means += [answer.result() for answer in [s.read("hidden:-1", pool="mean") for s in sequences]]
        vectors = np.stack(means) if means else np.zeros((0, self.engine.spec.hidden), np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _complete(
        self, prompts: Sequence[Prompt], sampling: Sampling | None, stop: Stop | None, n: int, how: dict[str, Any]
    ) -> list[Completion]:
        """`how`: what every prompt is opened with."""
        if n < 1:
            raise InvalidRequest(f"n is {n}; ask for at least one completion.", "n")
        done: list[Completion] = []
        for some in _windows(prompts, self.engine.options.queue // n):
            with ExitStack() as opened:
                roots = [opened.enter_context(self.engine.open_now(prompt, **how)) for prompt in some]
                branches = [[root] if n == 1 else [opened.enter_context(k) for k in root.fork(n)] for root in roots]
                running = [[sequence.extend(stop, sampling) for sequence in branch] for branch in branches]
                done += [
                    Completion(root.prompt_tokens, root.seed, [extension.result() for extension in extensions])
                    for root, extensions in zip(roots, running, strict=True)
                ]
        return done

    def close(self) -> None:
        self.engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _is_one(prompts: Prompt | Sequence[str]) -> bool:
    return isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))


def _windows(prompts: Sequence[Prompt], most: int) -> Iterator[Sequence[Prompt]]:
    """At most as many prompts at a time as the engine's queue takes."""
    size = max(most, 1)
    return (prompts[start : start + size] for start in range(0, len(prompts), size))
