"""transformers: `generate` in bf16 with scaled-dot-product attention, prompts kept in its dynamic cache."""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers
from protocol import Cell, Runner, Settings, serve, window_rate
from transformers import AutoModelForCausalLM, DynamicCache, StoppingCriteria, StoppingCriteriaList


class Clock(StoppingCriteria):
    """Notes when each step of `generate` ended; stops nothing."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        rows, length = input_ids.shape
        self.marks.append((time.perf_counter(), rows * length))
        return torch.zeros(rows, dtype=torch.bool)


class Transformers(Runner):
    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        self.model = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.bfloat16).eval()
        self.version, self.weights = transformers.__version__, "bf16, dequantised from the file"
        self._cache = DynamicCache()

    def prepare(self, cell: Cell, prompts: list[list[int]]) -> None:
        self._cache = DynamicCache()
        self._generate(prompts, 2, self._cache)

    def decode(self, cell: Cell, prompts: list[list[int]]) -> float:
        self._cache.crop(cell.prompt - 1 - self._cache.get_seq_length())
        return window_rate(self._generate(prompts, cell.new, self._cache).marks, cell)

    def prefill(self, cell: Cell, prompts: list[list[int]]) -> float:
        began = time.perf_counter()
        clock = self._generate(prompts, cell.new, DynamicCache())
        return sum(map(len, prompts)) / (clock.marks[0][0] - began)

    def _generate(self, prompts: list[list[int]], new: int, cache: DynamicCache) -> Clock:
        clock, ids = Clock(), torch.tensor(prompts)
        self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            do_sample=False,
            max_new_tokens=new,
            min_new_tokens=new,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        return clock


if __name__ == "__main__":
    serve(Transformers)
