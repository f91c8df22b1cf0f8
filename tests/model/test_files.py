"""Wrong, cut-off and foreign files: one clear sentence each, never a traceback of something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from headrace.model.catalogue import resolve
from headrace.model.loading import load_model
from headrace.spec.errors import HeadraceError, ModelFileError, UnsupportedModel
from headrace.spec.ledger import Ledger
from model.gguf_twins import write_gguf
from model.twins import TWINS, make_twin


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    write_gguf(path / "twin.gguf", "llama", make_twin(TWINS[0], path / "folder"))
    return path


def sentence(path: Path, kind: type[HeadraceError] = ModelFileError) -> str:
    """The error's text, after checking that it is one sentence with a next step."""
    with pytest.raises(kind) as caught:
        load_model(path, Ledger())
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and (";" in text or "merge" in text), text
    return text


def changed_config(folder: Path, tmp_path: Path, **changes: Any) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(folder / "folder", copy)
    config = json.loads((copy / "config.json").read_text())
    config |= changes
    (copy / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))
    return copy


def test_missing_path(tmp_path: Path) -> None:
    assert "does not exist" in sentence(tmp_path / "nothing.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04" + bytes(100), b"hello world, this is text", bytes(4096)])
def test_foreign_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    assert "not a GGUF file" in sentence(tmp_path / "x.gguf")


def test_cut_off_gguf_at_every_kind_of_offset(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "twin.gguf").read_bytes()
    offsets = [4, 7, 8, 20, 24, 30, *range(40, 2000, 97), len(whole) // 2, len(whole) - 1]
    for offset in offsets:
        (tmp_path / "cut.gguf").write_bytes(whole[:offset])
        assert "cut off" in sentence(tmp_path / "cut.gguf"), offset


def test_damaged_gguf_headers_never_raise_anything_else(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "twin.gguf").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(4, 2500, 3):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "bad.gguf").write_bytes(damaged)
        try:
            load_model(tmp_path / "bad.gguf", Ledger())
        except HeadraceError:
            refused += 1
    assert refused > 100


def test_version_and_split_files(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "twin.gguf").read_bytes()
    (tmp_path / "v9.gguf").write_bytes(whole[:4] + (9).to_bytes(4, "little") + whole[8:])
    assert "version 9" in sentence(tmp_path / "v9.gguf")
    writer = gguf.GGUFWriter(tmp_path / "part.gguf", "llama")
    writer.add_uint16("split.count", 3)
    finish(writer)
    assert "-00001-of-00003.gguf" in sentence(tmp_path / "part.gguf")


def test_a_model_in_parts_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    whole = gguf.GGUFReader(folder / "twin.gguf")
    writer = gguf.GGUFWriter(tmp_path / "twin.gguf", "llama", split_max_tensors=len(whole.tensors) // 3)
    for field in whole.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            sub_type = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in whole.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    finish(writer)
    parts = sorted(tmp_path.glob("twin-*.gguf"))
    assert len(parts) > 2
    wanted = load_model(folder / "twin.gguf", Ledger())
    for path in (parts[0], parts[-1], tmp_path):
        ledger = Ledger()
        found = load_model(path, ledger)
        assert (found.name, found.file_bytes) == ("twin", sum(part.stat().st_size for part in parts))
        assert (found.spec, found.weight_types) == (wanted.spec, wanted.weight_types)
        for name, tensor in wanted.weights.weights.items():
            np.testing.assert_array_equal(found.weights.weights[name].numpy(), tensor.numpy())
    parts[1].write_bytes(parts[1].read_bytes()[:-1000])
    assert "cut off" in sentence(parts[0])
    parts[1].unlink()
    assert f"lacks {parts[1].name}" in sentence(parts[0])


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_unknown_architecture_names_the_supported_ones(tmp_path: Path) -> None:
    finish(gguf.GGUFWriter(tmp_path / "x.gguf", "mamba"))
    text = sentence(tmp_path / "x.gguf", UnsupportedModel)
    assert "'mamba'" in text and "llama" in text and "qwen3moe" in text


def test_missing_metadata_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(2)
    finish(writer)
    assert "num_attention_heads" in sentence(tmp_path / "x.gguf")


def test_unknown_gguf_setting_is_named(folder: Path, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    for add, value in (
        (writer.add_block_count, 1), (writer.add_context_length, 64), (writer.add_embedding_length, 64),
        (writer.add_feed_forward_length, 64), (writer.add_head_count, 4), (writer.add_vocab_size, 32),
        (writer.add_residual_scale, 0.3),
    ):  # fmt: skip
        add(value)
    finish(writer)
    assert "llama.residual_scale" in sentence(tmp_path / "x.gguf", UnsupportedModel)


def test_missing_surplus_and_misshapen_tensors_are_named(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / "model"
    shutil.copytree(folder / "folder", copy)
    tensors = load_file(copy / "model.safetensors")
    gone = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != gone}, copy / "model.safetensors")
    assert "layers.1.mlp.up_proj.weight" in sentence(copy)
    save_file(tensors | {"model.layers.0.extra.weight": tensors[gone]}, copy / "model.safetensors")
    assert "layers.0.extra.weight" in sentence(copy)
    save_file(tensors | {gone: tensors[gone][:-1]}, copy / "model.safetensors")
    assert "layers.1.mlp.up.weight is [127, 64]" in sentence(copy)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "rwkv"}, "'rwkv'"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"residual_multiplier": 0.2}, "residual_multiplier"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1.0}}, "spiral"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "twist": 3}}, "twist"),
    ],
)
def test_settings_that_are_not_understood_are_named(
    changes: dict[str, Any], named: str, folder: Path, tmp_path: Path
) -> None:
    assert named in sentence(changed_config(folder, tmp_path, **changes), UnsupportedModel)


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"])
def test_missing_settings_are_named(field: str, folder: Path, tmp_path: Path) -> None:
    assert field in sentence(changed_config(folder, tmp_path, **{field: "absent"}))


def test_old_spellings_of_rope_settings(folder: Path, tmp_path: Path) -> None:
    old = {"rope_parameters": "absent", "rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    rope = load_model(changed_config(folder, tmp_path, **old), Ledger()).spec.layers[0].attention.rope
    assert rope is not None and (rope.theta, rope.scaling, rope.factor) == (5000.0, "linear", 2.0)


def test_folders_without_parts(folder: Path, tmp_path: Path) -> None:
    assert "config.json" in sentence(tmp_path)
    copy = tmp_path / "model"
    shutil.copytree(folder / "folder", copy)
    data = (copy / "model.safetensors").read_bytes()
    for offset in (0, 5, 8, 200, len(data) // 2, len(data) - 1):
        (copy / "model.safetensors").write_bytes(data[:offset])
        sentence(copy)
    (copy / "model.safetensors").unlink()
    assert "safetensors" in sentence(copy)
    (copy / "config.json").write_text("{")
    sentence(copy)


def test_sharded_bf16_folder(folder: Path, tmp_path: Path) -> None:
    """Shards with an index, in bf16, read without torch: the values are those of the rounded weights."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "folder", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load_model(tmp_path, Ledger())
    assert set(loaded.weight_types) == {"bf16"}
    weights: Any = loaded.weights
    wanted = model.model.layers[1].mlp.up_proj.weight.float().detach().numpy()
    np.testing.assert_array_equal(weights.weights["layers.1.mlp.up.weight"].numpy(), wanted)
    next(tmp_path.glob("*-00001-*.safetensors")).unlink()
    assert "lacks the shards" in sentence(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 20_000_000),
        ("attention.head_count", 0),
        ("attention.head_count", "many"),
        ("rope.freq_base", ""),
    ],
)
def test_settings_that_make_no_sense(key: str, value: Any, tmp_path: Path) -> None:
    settings = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4, "context_length": 64}
    settings |= {"feed_forward_length": 64, "attention.layer_norm_rms_epsilon": 1e-6, key: value}
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    for name, setting in settings.items():
        kind = gguf.GGUFValueType.get_type(setting)
        writer.add_key_value(f"llama.{name}", setting, kind)
    finish(writer)
    sentence(tmp_path / "x.gguf")


def test_an_alignment_of_nothing(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_uint32("general.alignment", 0)
    finish(writer)
    sentence(tmp_path / "x.gguf")


def test_a_name_too_long_for_a_path() -> None:
    with pytest.raises(ModelFileError):
        resolve("x" * 300)
