"""Whatever a ModelSpec says, its veil computes the same, and an engine with a prefix cache does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.veil.made import BY_NAME, TOLERANCE, difference, make_pair

# isort: split
from backends.twins import LAYER_NORM, RandomStore, decoder, draw, limits_of, row, submit
from headrace.backends.reference.executor import ReferenceExecutor
from headrace.engine.engine import Engine
from headrace.model.loading import ResidentStore
from headrace.privacy.veil.keys import Master
from headrace.privacy.veil.planner import untied
from headrace.privacy.veil.transform import Veil
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec, Norm, Rope
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop


@st.composite
def specs(draws: st.DrawFn) -> ModelSpec:
    queries, kv_heads, width = draws(st.sampled_from([1, 2, 3])), draws(st.sampled_from([1, 2, 3])), 8
    qk_norm = draws(st.sampled_from(["none", "head", "full"]))
    rope = draws(st.sampled_from([None, Rope(8), Rope(4)]))
    bias, experts = draws(st.booleans()), draws(st.sampled_from([0, 0, 3]))
    norm = draws(st.sampled_from([Norm(), LAYER_NORM]))
    attention = {
        "heads": queries * kv_heads, "kv_heads": kv_heads, "head_dim": width, "scale": width**-0.5, "rope": rope,
        "qk_norm": qk_norm, "qkv_bias": bias, "out_bias": bias, "softcap": draws(st.sampled_from([None, 2.0])),
    }  # fmt: skip
    mlp: dict[str, Any] = {"activation": draws(st.sampled_from(["silu", "relu", "gelu_tanh"]))}
    mlp |= {"experts": experts, "top_k": 2} if experts else {"gated": draws(st.booleans()), "bias": bias}
    return decoder(
        attention, mlp, {"norm": norm, "norms": draws(st.sampled_from(["before", "after", "both", "on_residual"]))},
        tied=draws(st.booleans()), head_bias=draws(st.booleans()), final_norm=draws(st.sampled_from([norm, None])),
    )  # fmt: skip


@settings(max_examples=40)
@given(specs(), st.integers(0, 2**32))
def test_the_veil_of_any_model_is_exact(spec: ModelSpec, seed: int) -> None:
    tokens = np.array(draw(24, seed))
    store = RandomStore(spec)
    own, weights = untied(spec, store.tensors)
    veil = Veil(own, Master(seed.to_bytes(32), "ab" * 32))
    moved = np.argsort(veil.frames.tokens())
    plain = ReferenceExecutor(spec, store, limits_of(spec), Ledger(), threads=1)
    veiled = ReferenceExecutor(own, ResidentStore(veil.apply(weights)), limits_of(own), Ledger(), threads=1)
    wanted = submit(plain, row(spec, tokens.tolist())).logits
    found = submit(veiled, row(own, moved[tokens].tolist())).logits
    assert difference(found[:, moved], wanted) < TOLERANCE


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_an_engine_with_and_without_its_prefix_cache(backend: Any, tmp_path: Path) -> None:
    if backend == "native":
        pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    pair = make_pair(BY_NAME["llama"], tmp_path)
    shared, ends = list(draw(40, 1, 90)), [list(draw(5, seed, 90)) for seed in (2, 3)]
    stop, greedy = Stop(tokens=10, ignore_eos=True), Sampling(temperature=0.0)

    def answers(folder: Path, cached: bool, prompts: list[list[int]]) -> tuple[list[list[int]], int]:
        how = {"state_memory": 8, "threads": 1, "state_type": "fp32", "prefix_cache": cached}
        with Engine.load(folder, EngineOptions(backend=backend, **how)) as engine:
            steps = [engine.open_now(prompt).extend(stop, greedy).result(60) for prompt in prompts]
        return [step.token_ids for step in steps], steps[-1].cached_tokens

    prompts = [[*shared, *end] for end in ends]
    wanted, _ = answers(pair.source, False, prompts)
    for cached in (True, False):
        found, reused = answers(pair.folder, cached, [pair.tokens.veiled(prompt) for prompt in prompts])
        assert [pair.tokens.plain(ids) for ids in found] == wanted
        assert (reused >= 32) == cached
