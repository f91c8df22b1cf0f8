"""Adapters in PEFT's format, on models of every family from both kinds of file, against merged transformers models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.backends.select import make_executor
from headrace.model.adapter import read_adapter
from headrace.model.loading import load_model
from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch, Row
from headrace.spec.errors import ModelFileError, UnsupportedModel
from headrace.spec.executor import Executor, Limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions
from model.gguf_twins import write_gguf
from model.lora import ALPHA, RANK, merge, projections, random_matrices, write_adapter
from model.twins import LENGTH, TWINS, VOCAB, Twin, make_tokens, make_twin

TOLERANCE = 2e-5
"""Largest difference over largest logit."""
NAMES = (
    "llama", "llama-biases", "mistral-full", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3",
    "phi3-partial", "olmo2", "gpt2",
)  # fmt: skip
DECODERS = [twin for twin in TWINS if twin.name in NAMES]
BACKENDS = pytest.mark.parametrize("backend", ["reference", "native"])
EXPERT = "model.layers.0.block_sparse_moe.experts.0.w1"


def executor(path: Path, backend: Any, pages: int = 4) -> Executor:
    if backend == "native":
        pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    loaded = load_model(path, Ledger())
    limits = Limits((pages,) * len(loaded.spec.state_groups()), 64, 64)
    options = EngineOptions(backend=backend, state_type="fp32", threads=1)
    return make_executor(loaded.spec, loaded.weights, limits, Ledger(), options)


def run(backend: Executor, tokens: list[int], adapter: str | None = None, **asked: Any) -> Any:
    table = tuple(range(-(-len(tokens) // PAGE_TOKENS)))
    pages = (table,) * len(backend.limits.pages)
    row = Row(0, "prefill", 0, tuple(tokens), pages, **({"logits_from": 0} | asked), adapter=adapter)
    return backend.submit(Batch(0, (row,))).result()


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_every_family_of_decoders_is_here() -> None:
    assert {twin.family for twin in DECODERS} == {twin.family for twin in TWINS} - {"bert"}


@pytest.mark.parametrize("twin", DECODERS, ids=lambda twin: twin.name)
def test_logits_are_those_of_the_merged_model(twin: Twin, tmp_path: Path) -> None:
    """From safetensors and from GGUF, whose query and key rows may stand in another order, on both backends."""
    model = make_twin(twin, tmp_path / "model")
    gguf = write_gguf(tmp_path / "model.gguf", twin.family, model)
    matrices = random_matrices(model, 1)
    folder = write_adapter(tmp_path / "adapter", matrices)
    merge(model, matrices)
    tokens = make_tokens(1)
    with torch.no_grad():
        wanted = model(tokens).logits[0].numpy()
    for path in (tmp_path / "model", gguf):
        for name in ("reference", "native"):
            backend = executor(path, name)
            adapter = read_adapter(folder, "one", backend.spec)
            backend.add_adapter(adapter)
            assert difference(run(backend, tokens[0].tolist(), "one").logits, wanted) <= TOLERANCE, (path.name, name)
            assert difference(run(backend, tokens[0].tolist()).logits, wanted) > 0.05


@BACKENDS
def test_hidden_states_of_an_encoder_are_those_of_the_merged_model(backend: str, tmp_path: Path) -> None:
    model = make_twin(TWINS[-1], tmp_path / "model")
    matrices = random_matrices(model, 1)
    ours = executor(tmp_path / "model", backend)
    ours.add_adapter(read_adapter(write_adapter(tmp_path / "adapter", matrices), "one", ours.spec))
    merge(model, matrices)
    tokens = make_tokens(1)
    with torch.no_grad():
        wanted = model(tokens).last_hidden_state[0].numpy()
    last = len(ours.spec.layers)
    found = run(ours, tokens[0].tolist(), "one", logits_from=None, reads=(last,)).hidden[0, last]
    assert difference(found, wanted) <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "phi3-partial", "gpt2"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"layers.1.mlp.down_proj": 7}, "alpha_pattern": {"down_proj|c_fc": 3}},
        {"alpha_pattern": {"model.layers.0.self_attn.o_proj": 2}, "init_lora_weights": "gaussian"},
    ],
    ids=["plain", "rank-stabilised", "patterns", "full name"],
)
def test_logits_are_those_of_peft(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    twin = next(twin for twin in TWINS if twin.name == name)
    model = make_twin(twin, tmp_path / "model")
    targets = sorted({module.rpartition(".")[2] for module in projections(model)})
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=targets, fan_in_fan_out=name == "gpt2", **settings
    )
    theirs = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for weight, parameter in theirs.named_parameters():
            if "lora_" in weight:
                parameter.normal_(0.0, 0.2)
        theirs.save_pretrained(tmp_path / "adapter")
        wanted = theirs(make_tokens(1)).logits[0].numpy()
    ours = executor(tmp_path / "model", "reference")
    ours.add_adapter(read_adapter(tmp_path / "adapter", "one", ours.spec))
    assert difference(run(ours, make_tokens(1)[0].tolist(), "one").logits, wanted) <= TOLERANCE


def test_smollm2_from_gguf_against_merged_dequantised_weights(smollm2: Path, tmp_path: Path) -> None:
    """transformers puts the query and key rows of the file back into the order that adapters are trained in."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(smollm2.parent), gguf_file=smollm2.name, dtype=torch.float32)
    matrices = random_matrices(model, 1, only=("q_proj", "k_proj"))
    matrices = {name: (a, b / math.sqrt(a.shape[1])) for name, (a, b) in matrices.items()}
    folder = write_adapter(tmp_path, matrices)
    tokens = torch.randint(100, 20_000, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        base = model(tokens).logits[0].numpy()
        merge(model, matrices)
        wanted = model(tokens).logits[0].numpy()
    assert difference(base, wanted) > 0.02
    for backend, tolerance in (("reference", 1e-4), ("native", 5e-4)):
        ours = executor(smollm2, backend)
        ours.add_adapter(read_adapter(folder, "one", ours.spec))
        assert difference(run(ours, tokens[0].tolist(), "one").logits, wanted) <= tolerance


# ---- what is read, and what is refused ----


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("llama")
    model = make_twin(TWINS[0], folder)
    return model, load_model(folder, Ledger()).spec


def read(llama: tuple[Any, Any], folder: Path, **settings: Any) -> Adapter:
    model, spec = llama
    return read_adapter(write_adapter(folder, random_matrices(model, 1), **settings), "one", spec)


def test_scales_and_kinds(llama: tuple[Any, Any], tmp_path: Path) -> None:
    plain = read(llama, tmp_path / "plain")
    assert {target.scale for target in plain.targets.values()} == {ALPHA / RANK} and plain.rank == RANK
    stable = read(llama, tmp_path / "stable", use_rslora=True)
    assert {target.scale for target in stable.targets.values()} == {ALPHA / math.sqrt(RANK)}
    rounded = read(llama, tmp_path / "rounded", bf16=True)
    found, wanted = (adapter.targets["layers.1.mlp.down.weight"].a for adapter in (rounded, plain))
    assert found.dtype == np.float32 and 0 < difference(found, wanted) < 0.01


def test_digests_tell_adapters_apart_and_not_their_names(llama: tuple[Any, Any], tmp_path: Path) -> None:
    model, spec = llama
    matrices = random_matrices(model, 1)
    first = read_adapter(write_adapter(tmp_path / "a", matrices), "one", spec)
    again = read_adapter(write_adapter(tmp_path / "b", matrices), "two", spec)
    assert first.digest() == again.digest()
    scaled = read_adapter(write_adapter(tmp_path / "c", matrices, lora_alpha=9.0), "one", spec)
    other = read_adapter(write_adapter(tmp_path / "d", random_matrices(model, 2)), "one", spec)
    fewer = dict(list(matrices.items())[1:])
    less = read_adapter(write_adapter(tmp_path / "e", fewer), "one", spec)
    assert len({adapter.digest() for adapter in (first, scaled, other, less)}) == 4


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, r"not a plain LoRA adapter \(DoRA\)"),
    "another kind": ({"peft_type": "IA3"}, r"\(IA3\)"),
    "trained heads": ({"modules_to_save": ["lm_head"]}, r"\(modules_to_save\)"),
    "biases": ({"bias": "all"}, r"\(trained biases\)"),
    "changed base": ({"init_lora_weights": "pissa_niter_16"}, "base weights changed by pissa_niter_16"),
    "no alpha": ({"lora_alpha": None}, "settings that make no sense"),
    "infinite": ({"lora_alpha": math.inf}, "settings that make no sense"),
    "a wild pattern": ({"alpha_pattern": {"(": 3}}, "settings that make no sense"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_are_refused(what: str, llama: tuple[Any, Any], tmp_path: Path) -> None:
    settings, message = REFUSED[what]
    with pytest.raises((ModelFileError, UnsupportedModel), match=message) as refusal:
        read(llama, tmp_path, **settings)
    assert str(refusal.value).endswith(".") and ";" in str(refusal.value)


def pair(outputs: int, inputs: int, rank: int = RANK) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((rank, inputs), np.float32), np.ones((outputs, rank), np.float32)


MODULES: dict[str, tuple[dict[str, Any], str]] = {
    "head": ({"lm_head": pair(VOCAB, 64)}, "changes lm_head, which adapters cannot change in a llama"),
    "expert": ({EXPERT: pair(8, 64)}, "experts.0.w1, which adapters cannot change"),
    "layer": ({"model.layers.9.mlp.up_proj": pair(128, 64)}, "changes layers.9.mlp.up_proj"),
    "outputs": ({"model.layers.0.mlp.up_proj": pair(96, 64)}, "96 outputs for layers.0.mlp.up_proj, which has 128"),
    "inputs": ({"model.layers.0.mlp.up_proj": pair(128, 32)}, r"\[128, 5\] x \[5, 32\] for layers.0.mlp.up.weight"),
    "ranks": (
        {"model.layers.0.mlp.up_proj": (pair(128, 64, 4)[0], pair(128, 64)[1])},
        r"\[128, 5\] x \[4, 64\] for layers.0.mlp.up.weight",
    ),
    "nothing": ({}, "changes nothing"),
}


@pytest.mark.parametrize("what", MODULES)
def test_modules_that_are_refused(what: str, llama: tuple[Any, Any], tmp_path: Path) -> None:
    matrices, message = MODULES[what]
    with pytest.raises((ModelFileError, UnsupportedModel), match=message):
        read_adapter(write_adapter(tmp_path, matrices), "one", llama[1])


def test_a_fused_projection_of_another_width_is_refused(tmp_path: Path) -> None:
    twin = next(twin for twin in TWINS if twin.name == "phi3-partial")
    make_twin(twin, tmp_path / "model")
    spec = load_model(tmp_path / "model", Ledger()).spec
    for rows in (120, 130):
        matrices = {"model.layers.0.self_attn.qkv_proj": pair(rows, 64)}
        with pytest.raises(ModelFileError, match=f"{rows} outputs for layers.0.self_attn.qkv_proj, which has 128"):
            read_adapter(write_adapter(tmp_path / str(rows), matrices), "one", spec)


def test_files_that_are_refused(llama: tuple[Any, Any], tmp_path: Path) -> None:
    model, spec = llama
    with pytest.raises(ModelFileError, match="is no adapter's folder"):
        read_adapter(tmp_path / "absent", "one", spec)
    with pytest.raises(ModelFileError, match=r"adapter_config\.json cannot be read"):
        read_adapter(tmp_path, "one", spec)
    folder = write_adapter(tmp_path / "cut", random_matrices(model, 1))
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelFileError, match="cut off"):
        read_adapter(folder, "one", spec)
    file.rename(folder / "adapter_model.bin")
    with pytest.raises(ModelFileError, match=r"has no adapter_model\.safetensors"):
        read_adapter(folder, "one", spec)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector", "which is no part of a LoRA adapter"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "which is no part of a LoRA adapter"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", "only one of the two matrices"),
    ],
)
def test_tensors_that_are_refused(name: str, message: str, llama: tuple[Any, Any], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = write_adapter(tmp_path, {})
    save_file({name: np.ones((5, 64), np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises((ModelFileError, UnsupportedModel), match=message):
        read_adapter(folder, "one", llama[1])
