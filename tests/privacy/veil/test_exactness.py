"""A veiled model computes what the plain one does: every family, every way of running it, both backends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from privacy.veil.made import (
    BY_NAME,
    TOLERANCE,
    Pair,
    difference,
    executor,
    logits,
    make_pair,
    pair_of,
    texts,
    unveiled_difference,
)

# isort: split
from backends.twins import row, submit
from headrace.privacy.veil.planner import plan_veil
from headrace.privacy.veil.transform import Veil
from model.gguf_twins import write_gguf
from model.twins import make_twin

DECODERS = [name for name, twin in BY_NAME.items() if twin.family != "bert"]
MODES = ("whole", "cached", "chunked", "packed")
GROUPS = {
    "llama": ("orthogonal", "planes"), "mistral": ("orthogonal", "planes"), "mixtral": ("orthogonal", "planes"),
    "qwen2": ("orthogonal", "planes"), "qwen3": ("orthogonal", "signs"), "qwen3_moe": ("orthogonal", "signs"),
    "gemma2": ("signed", "planes"), "gemma3": ("signed", "signs"), "phi3": ("orthogonal", "planes"),
    "olmo2": ("signed", "signs"), "gpt2": ("orthogonal_one", "general"), "bert": ("signed_one", "general"),
}  # fmt: skip
Make = Callable[[str], Pair]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    return functools.cache(lambda name: make_pair(BY_NAME[name], tmp_path_factory.mktemp(name)))


CASES = [(name, mode) for name in DECODERS for mode in (("cached",) if "-" in name else MODES)]
"""Each family in every way; other settings of it in the one that touches most."""


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_logits_are_equal(name: str, backend: str, mode: str, make: Make) -> None:
    assert unveiled_difference(make(name), mode, backend) < TOLERANCE


@pytest.mark.parametrize("name", BY_NAME)
def test_the_largest_group_is_planned(name: str, make: Make) -> None:
    plan = plan_veil(make(name).veiled.spec)
    family = BY_NAME[name].family
    assert (plan.stream.group, plan.heads[0].qk) == GROUPS[family]
    assert all(heads.vo == "general" and heads.order == "permutation" for heads in plan.heads.values())
    gated = make(name).veiled.spec.layers[0].mlp.gated
    assert {units.up for units in plan.units.values()} == {"scaled" if gated else "permutation"}


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_hidden_states_of_an_encoder_turn_back(backend: str, make: Make) -> None:
    pair, tokens = make("bert"), texts(1)[0]
    last = len(pair.plain.spec.layers)

    def hidden(loaded: object, ids: list[int]) -> np.ndarray:
        found = submit(executor(loaded, backend), row(loaded.spec, ids, logits_from=None, reads=(last,)))
        return found.hidden[0, last].astype(np.float64)

    frames = Veil(pair.veiled.spec, pair.key.master).frames
    veiled = hidden(pair.veiled, pair.tokens.veiled(tokens))
    plain = hidden(pair.plain, tokens)
    assert difference(frames["stream"].undo(veiled), plain) < TOLERANCE
    assert difference(veiled, plain) > 0.1


def test_no_weight_is_left_as_it_was(make: Make) -> None:
    """Apart from gains that were folded, each tensor differs from the source's by much of its size."""
    for name in ("llama-biases", "qwen3_moe", "gpt2", "gemma2", "olmo2", "bert"):
        pair = make(name)
        plain = pair.plain.weights.weights
        for weight, tensor in pair.veiled.weights.weights.items():
            values = tensor.numpy()
            source = plain.get(weight, plain["embed.weight"]).numpy()
            folded = weight.endswith("norm.weight") and (values == 1).all()
            assert folded or difference(values, source) > 0.1, (name, weight)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral"])
def test_bf16_rounds_no_worse(name: str, make: Make) -> None:
    """Tokens differ only where the fp32 margin is below what rounding moves; veiling does not make that larger."""
    pair, ids = make(name), texts()
    moved = [pair.tokens.veiled(text) for text in ids]
    exact = logits(pair.plain, "whole", "reference", ids)
    plain = logits(pair.plain, "whole", "reference", ids, dtype="bf16")
    back = pair.tokens.veiled(range(exact.shape[1]))
    veiled = logits(pair.veiled, "whole", "reference", moved, dtype="bf16")[:, back]
    # A router that takes its second best expert for its best moves a row by more than rounding does.
    routed = 4 if name == "mixtral" else 2
    assert difference(veiled, exact) < routed * difference(plain, exact)
    top = np.sort(exact, axis=1)
    margins, rounding = top[:, -1] - top[:, -2], np.abs(plain - exact).max()
    assert margins[veiled.argmax(1) != exact.argmax(1)].max(initial=0.0) <= 2 * rounding


@pytest.mark.parametrize("name", ["llama-tied", "qwen3_moe", "gemma3", "gpt2", "phi3-partial", "olmo2", "mixtral"])
def test_a_gguf_file_is_veiled_from_its_dequantised_weights(name: str, tmp_path: Path) -> None:
    import gguf

    twin = BY_NAME[name]
    model = make_twin(twin, tmp_path / "published")

    def quantise(weight: str, values: np.ndarray) -> gguf.GGMLQuantizationType | None:
        fits = values.shape[-1] % 32 == 0 and "norm" not in weight
        return gguf.GGMLQuantizationType.Q8_0 if fits else None

    source = write_gguf(tmp_path / "twin.gguf", twin.family, model, quantise)
    pair = pair_of(source, tmp_path / "veiled", twin.context)
    assert "Q8_0" in pair.plain.weight_types and set(pair.veiled.weight_types) == {"f32"}
    assert unveiled_difference(pair) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3",
                                  "phi3", "olmo2", "gpt2"])  # fmt: skip
def test_transformers_runs_the_artefact_as_it_is(name: str, make: Make) -> None:
    import torch
    import transformers

    pair, ids = make(name), texts(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(pair.folder, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = model(torch.tensor([pair.tokens.veiled(ids[0])])).logits[0].numpy()
    plain = logits(pair.plain, "whole", "reference", ids)
    assert difference(theirs[:, pair.tokens.veiled(range(plain.shape[1]))], plain) < TOLERANCE
