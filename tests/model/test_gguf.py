"""GGUF files in llama.cpp's names and layouts load to the same weights as the published checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from headrace.model.gguf_file import read_gguf
from headrace.model.loading import ResidentStore, load_model
from headrace.spec.ledger import Ledger
from headrace.spec.model import Attention, ModelSpec
from headrace.spec.rope import rope_amplitude, rope_frequencies
from model.gguf_twins import ARCHITECTURES, write_gguf
from model.twins import TWINS, Twin, make_twin

NOT_IN_GGUF = {
    "llama-dynamic": "the format has no dynamic scaling",
    "llama-yarn-mscale": "the format has no truncate or mscale keys",
    "mistral": "the llama architecture has no window in the format",
    "mixtral-window": "the llama architecture has no window in the format",
    "qwen2-window": "the qwen2 architecture has no window in the format",
    "qwen3_moe-mixed": "the qwen3moe architecture has neither dense layers nor weights that are not renormalised",
    "gpt2-scales": "the format has no scale by layer",
    "gemma2-caps": "the format has no query scale",
    "gemma3-linear": "the format has no query scale",
    "qwen3-biases": "the qwen3 architecture has no biases in the tensor list",
}
KNOWN = [twin for twin in TWINS if twin.name not in NOT_IN_GGUF]


def _comparable(attention: Attention) -> tuple[object, ...]:
    """Settings, with a rope by what it does: files spell the same frequencies in two ways."""
    rope = attention.rope
    spelled = (tuple(np.float32(rope_frequencies(rope))), np.float32(rope_amplitude(rope))) if rope else None
    return replace(attention, rope=None, qk_norm_eps=0.0, scale=0.0), spelled, np.float32(attention.scale)


def assert_same_spec(ours: ModelSpec, wanted: ModelSpec) -> None:
    for a, b in zip(ours.layers, wanted.layers, strict=True):
        settings, rope, scale = _comparable(a.attention)
        wanted_settings, wanted_rope, wanted_scale = _comparable(b.attention)
        assert settings == wanted_settings and scale == wanted_scale
        if rope is not None:
            np.testing.assert_allclose(rope[0], wanted_rope[0], rtol=1e-6)
            assert rope[1] == pytest.approx(wanted_rope[1], rel=1e-6)
        assert a.mlp == b.mlp and a.norms == b.norms
        assert a.norm.eps == pytest.approx(b.norm.eps, rel=1e-6)
    fields = ("hidden", "vocab", "context", "tied", "embed_scale", "learned_positions", "token_types", "causal")
    assert {f: getattr(ours, f) for f in fields} == {f: getattr(wanted, f) for f in fields}
    assert (ours.logit_softcap or 0) == pytest.approx(wanted.logit_softcap or 0, rel=1e-6)
    assert ours.logit_scale == wanted.logit_scale


@pytest.mark.parametrize("twin", KNOWN, ids=lambda twin: twin.name)
def test_gguf_equals_the_published_checkpoint(twin: Twin, tmp_path: Path) -> None:
    model = make_twin(twin, tmp_path / "folder")
    file = write_gguf(tmp_path / "twin.gguf", twin.family, model)
    ledger = Ledger()
    ours = load_model(file, ledger, twin.context)
    wanted = load_model(tmp_path / "folder", Ledger(), twin.context)
    assert_same_spec(ours.spec, wanted.spec)
    assert ledger.total == 0 and [item.bytes for item in ledger.mapped] == [file.stat().st_size]
    assert isinstance(ours.weights, ResidentStore) and isinstance(wanted.weights, ResidentStore)
    assert ours.weights.weights.keys() == wanted.weights.weights.keys()
    for name, tensor in ours.weights.weights.items():
        np.testing.assert_array_equal(tensor.numpy(), wanted.weights.weights[name].numpy(), err_msg=name)


def test_every_architecture_is_written() -> None:
    assert {ARCHITECTURES[twin.family] for twin in KNOWN} == set(ARCHITECTURES.values())


def test_quantised_heads_are_reordered_without_decoding(tmp_path: Path) -> None:
    twin = next(twin for twin in TWINS if twin.name == "llama")
    model = make_twin(twin, tmp_path / "folder")
    kind = gguf.GGMLQuantizationType.Q8_0
    file = write_gguf(tmp_path / "q.gguf", "llama", model, lambda name, values: kind)
    weights = load_model(file, Ledger()).weights
    assert isinstance(weights, ResidentStore)
    wanted = load_model(tmp_path / "folder", Ledger()).weights
    assert isinstance(wanted, ResidentStore)
    for name, tensor in weights.weights.items():
        plain = wanted.weights[name].numpy()
        if plain.ndim > 1:
            assert tensor.kind == "Q8_0" and tensor.stored().dtype == np.uint8, name
            plain = gguf.quants.dequantize(gguf.quants.quantize(plain, kind), kind)
        np.testing.assert_array_equal(tensor.numpy(), plain, err_msg=name)


WRITABLE = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16")
READ_ONLY = (
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S",
    "IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS", "MXFP4",
)  # fmt: skip


@pytest.mark.parametrize("name", WRITABLE + READ_ONLY)
def test_every_type_decodes_as_the_gguf_package_does(name: str, tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    if name in WRITABLE:
        stored = gguf.quants.quantize(rng.standard_normal((6, 512), np.float32), kind)
    else:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        stored = rng.integers(0, 256, (6, 512 // block * size), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "llama")
    writer.add_tensor("x", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = read_gguf(tmp_path / "t.gguf").tensors["x"]
    with np.errstate(all="ignore"):
        wanted = gguf.quants.dequantize(stored.view(np.uint8) if name == "BF16" else stored, kind)
        np.testing.assert_array_equal(tensor.numpy(), wanted)
        np.testing.assert_array_equal(tensor.rows(2, 5).numpy(), wanted[2:5])
        np.testing.assert_array_equal(tensor.take(np.array([5, 0, 3])).numpy(), wanted[[5, 0, 3]])
    assert tensor.shape == (6, 512) and tensor.mapped and tensor.rows(2, 5).mapped
    assert tensor.nbytes == stored.nbytes


def test_types_cover_all_that_gguf_reads() -> None:
    readable = {kind.name for kind in gguf.quants._type_traits}
    assert readable - set(WRITABLE + READ_ONLY) <= {"NVFP4"}
