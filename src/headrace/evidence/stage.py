"""What engine claims run on: a tiny random model or SmolLM2, one executor, and as many engines over it as needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from headrace.backends.select import make_executor
from headrace.engine.engine import Engine
from headrace.model.tensor import Tensor
from headrace.model.tokenizer import Tokenizer
from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch
from headrace.spec.claim import Size
from headrace.spec.executor import Executor, Guarantees, Handle, Limits, StepResult
from headrace.spec.ledger import Ledger
from headrace.spec.model import Attention, Layer, Mlp, ModelSpec, Norm, Rope
from headrace.spec.options import EngineOptions
from headrace.spec.program import Operation, weight_names

FULL_MODEL = "smollm2-135m"
TINY = "a random 2-layer llama of width 64"


class View:
    """An executor seen through smaller limits, whose `close` leaves the shared one open."""

    def __init__(self, inner: Executor, tokens: int | None = None) -> None:
        self.inner = inner
        self.spec: ModelSpec = inner.spec
        self.guarantees: Guarantees = inner.guarantees
        most = min(tokens or inner.limits.tokens, inner.limits.tokens)
        self.limits: Limits = replace(inner.limits, tokens=most, logits=min(inner.limits.logits, most))

    def submit(self, batch: Batch) -> Handle:
        return self.inner.submit(batch)

    def add_adapter(self, adapter: Adapter) -> None:
        self.inner.add_adapter(adapter)

    def remove_adapter(self, name: str) -> None:
        self.inner.remove_adapter(name)

    def close(self) -> None:
        """The stage closes the executor that all views share."""


class CrossTalk(View):
    """A mutant: adds a `share` of each logit row's predecessor to it."""

    share = 0.5

    def submit(self, batch: Batch) -> Handle:
        logits = self.inner.submit(batch).result().logits
        if len(logits) > 1:
            logits = logits + self.share * logits[[-1, *range(len(logits) - 1)]]
        return _Ready(StepResult(logits))


@dataclass(frozen=True, slots=True)
class _Ready:
    value: StepResult

    def result(self) -> StepResult:
        return self.value


class Stage:
    """One loaded model. `engine(...)` gives a fresh engine over it, one at a time: they share its pages."""

    def __init__(self, executor: Executor, tokenizer: Tokenizer | None, name: str) -> None:
        self.executor, self.tokenizer, self.name = executor, tokenizer, name
        self.vocab = executor.spec.vocab

    @classmethod
    def for_size(cls, size: Size, step_tokens: int = 512, threads: int | None = None) -> Stage:
        """The tiny model for a quick run, SmolLM2 for a full one. Raises ModelFileError without its package."""
        return cls.tiny(step_tokens) if size == "quick" else cls.named(FULL_MODEL, step_tokens, threads)

    @classmethod
    def tiny(cls, step_tokens: int = 512, pages: int = 256) -> Stage:
        spec = tiny_spec()
        limits = Limits((pages,), step_tokens, min(64, step_tokens))
        return cls(make_executor(spec, RandomWeights(spec), limits, Ledger(), EngineOptions(threads=1)), None, TINY)

    @classmethod
    def named(
        cls,
        model: str,
        step_tokens: int = 512,
        threads: int | None = None,
        activations: Literal["int16", "int8"] = "int16",
    ) -> Stage:
        """A model by catalogue name or path. Raises ModelFileError, UnsupportedModel."""
        # The tiny model needs neither files nor the catalogue.
        from headrace.engine.load import decide_limits
        from headrace.model.catalogue import resolve
        from headrace.model.loading import load_model

        options = EngineOptions(
            step_tokens=step_tokens, state_memory=1024, threads=threads, context=2048, activations=activations
        )
        ledger = Ledger()
        loaded = load_model(resolve(model), ledger, options.context)
        limits = decide_limits(loaded.spec, options)
        executor = make_executor(loaded.spec, loaded.weights, limits, ledger, options)
        return cls(executor, loaded.tokenizer, loaded.name)

    def engine(
        self,
        step_tokens: int | None = None,
        view: Callable[[Executor], View] = View,
        kind: type[Engine] = Engine,
        prefix_cache: bool = False,
    ) -> Engine:
        """A fresh engine, cache cold. `view` may record or break what it passes on."""
        executor = view(View(self.executor, step_tokens))
        options = EngineOptions(prefix_cache=prefix_cache, step_tokens=executor.limits.tokens)
        return kind(executor, self.tokenizer, options, name=self.name)

    def close(self) -> None:
        self.executor.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def tiny_spec() -> ModelSpec:
    attention = Attention(4, 2, 16, 0.25, Rope(16))
    layer = Layer(attention, Mlp(128), Norm())
    return ModelSpec("llama", 64, 256, 1024, (layer, layer), tied=True, final_norm=Norm(), name="tiny")


class RandomWeights:
    """Random weights of a gated llama-like spec, the same for the same seed; always resident."""

    def __init__(self, spec: ModelSpec, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shapes = {"embed.weight": (spec.vocab, spec.hidden), "norm.weight": (spec.hidden,)}
        for index, layer in enumerate(spec.layers):
            shapes |= _layer_shapes(f"layers.{index}", spec.hidden, layer)
        self._held = {name: Tensor.of(name, _draw(rng, shape)) for name, shape in shapes.items()}

    def lease(self, operations: Sequence[Operation]) -> Mapping[str, Any]:
        return {name: self._held[name] for operation in operations for name in weight_names(operation)}

    def release(self, operations: Sequence[Operation]) -> None:
        """Nothing to give back: the weights stay resident."""


def _layer_shapes(base: str, hidden: int, layer: Layer) -> dict[str, tuple[int, ...]]:
    queries = layer.attention.heads * layer.attention.head_dim
    keys, width = layer.attention.kv_heads * layer.attention.head_dim, layer.mlp.width
    return {
        f"{base}.attn_norm.weight": (hidden,),
        f"{base}.attn.q.weight": (queries, hidden),
        f"{base}.attn.k.weight": (keys, hidden),
        f"{base}.attn.v.weight": (keys, hidden),
        f"{base}.attn.o.weight": (hidden, queries),
        f"{base}.mlp_norm.weight": (hidden,),
        f"{base}.mlp.gate.weight": (width, hidden),
        f"{base}.mlp.up.weight": (width, hidden),
        f"{base}.mlp.down.weight": (hidden, width),
    }


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return 1 + 0.1 * rng.standard_normal(shape)
    # Wide enough that attention decides the next token: a model that ignores its context proves nothing.
    return rng.standard_normal(shape) * 1.5 / shape[1] ** 0.5
