"""What does not hold is refused, and what was changed is caught."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.veil.made import BY_NAME, Pair, difference, fixed_key, logits, make_pair, texts

# isort: split
from backends.twins import ENCODER, MODELS, RandomStore, decoder
from headrace.model.loading import load_model
from headrace.model.tensor import Tensor
from headrace.privacy.veil import planner
from headrace.privacy.veil.artefact import TOKENIZER_FILES, read_manifest, sha256_of, verify, write_manifest
from headrace.privacy.veil.errors import ArtefactError, KeyFileError, SymmetryError
from headrace.privacy.veil.export import Export, export
from headrace.privacy.veil.frames import Frames
from headrace.privacy.veil.planner import plan_veil, untied
from headrace.privacy.veil.tokens import TokenMap
from headrace.privacy.veil.transform import Veil
from headrace.spec.ledger import Ledger
from headrace.spec.program import Normalize, compile_program


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(BY_NAME["llama-tied"], tmp_path_factory.mktemp("llama-tied"))


@pytest.fixture
def copied(pair: Pair, tmp_path: Path) -> Path:
    shutil.copytree(pair.folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        (MODELS["qk norm a head"], {"qk": "planes"}),
        (MODELS["qk norm full"], {"qk": "planes"}),
        (MODELS["grouped-query"], {"qk": "general"}),
        (MODELS["norms on both sides"], {"stream": "orthogonal"}),
        (MODELS["qk norm full"], {"stream": "orthogonal"}),
        (MODELS["learned positions"], {"stream": "orthogonal"}),
        (ENCODER, {"stream": "orthogonal_one"}),
        (ENCODER, {"stream": "signed"}),
        (MODELS["learned positions"], {"units": "scaled"}),
        (MODELS["grouped-query"], {"tokens": "signed"}),
    ],
)
def test_a_symmetry_that_does_not_hold_is_refused(spec: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(SymmetryError, match="compute something else"):
        plan_veil(spec, asked)


@pytest.mark.parametrize("asked", [{"stream": "signed"}, {"stream": "identity", "qk": "signs"}, {"vo": "orthogonal"}])
def test_a_smaller_group_is_granted(asked: dict[str, Any]) -> None:
    plan = plan_veil(MODELS["grouped-query"], asked)
    assert plan.stream.group == asked.get("stream", "orthogonal")


@pytest.mark.parametrize(("group", "entries"), [("orthogonal", None), ("signed", {-1, 0, 1}), ("permutation", {0, 1})])
def test_what_is_drawn_lies_in_the_group_asked_for(group: Any, entries: set[int] | None) -> None:
    blocks = Frames(plan_veil(MODELS["grouped-query"], {"vo": group}), fixed_master())["layers.0.v"].blocks
    assert len({block.tobytes() for block in blocks}) == len(blocks), "each key head has one of its own"
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(len(block)), atol=1e-12)
        assert entries is None or set(np.unique(block)) == entries


@pytest.mark.parametrize("name", ["qk norm a head", "qk norm full", "experts", "learned positions"])
def test_a_veil_of_no_group_changes_nothing_but_folds_gains(name: str) -> None:
    spec = MODELS[name]
    asked = dict.fromkeys(("stream", "tokens", "heads", "qk", "vo", "units", "experts"), "identity")
    tensors = RandomStore(spec).tensors
    veiled = Veil(spec, fixed_master(), plan=plan_veil(spec, asked)).apply(tensors)  # type: ignore[arg-type]
    for part in ("attn.q", "attn.k", "attn.v"):
        read = f"layers.0.{part}.weight"
        gain = tensors.get("layers.0.attn_norm.weight")
        wanted = tensors[read].numpy() * (1.0 if gain is None else gain.numpy())
        np.testing.assert_allclose(veiled[read].numpy(), wanted, rtol=1e-6)
    for kept in ("embed.weight", "layers.1.attn.o.weight"):
        np.testing.assert_allclose(veiled[kept].numpy(), tensors[kept].numpy(), rtol=1e-6)


def test_the_refused_rotary_keys_would_have_been_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner that grants everything turns planes under query and key norms: the answers are others."""
    monkeypatch.setattr(planner, "choose", lambda where, allowed, asked: asked or allowed)
    pair = make_pair(BY_NAME["qwen3"], tmp_path)
    spec, weights = untied(pair.plain.spec, pair.plain.weights.weights)
    ids = texts(1)
    back = pair.tokens.veiled(range(spec.vocab))
    plain = logits(pair.plain, "whole", "reference", ids)
    errors = {}
    for group in ("signs", "planes"):
        pair.veiled.weights.weights = Veil(spec, pair.key.master, plan=plan_veil(spec, {"qk": group})).apply(weights)
        found = logits(pair.veiled, "whole", "reference", [pair.tokens.veiled(ids[0])])
        errors[group] = difference(found[:, back], plain)
    assert errors["signs"] < 1e-5 and errors["planes"] > 0.1


def test_a_tied_head_is_refused_and_given_a_tensor_of_its_own() -> None:
    spec = MODELS["tied, biases"]
    with pytest.raises(SymmetryError, match="tied"):
        plan_veil(spec)
    own, weights = untied(spec, RandomStore(spec).tensors)
    assert plan_veil(own).rules["head.weight"] != plan_veil(own).rules["embed.weight"]
    assert not own.tied and "head.weight" in weights


def test_an_unknown_tensor_or_a_missing_one_is_refused() -> None:
    spec = MODELS["grouped-query"]
    tensors = RandomStore(spec).tensors
    veil = Veil(spec, fixed_master())
    strange = tensors | {"layers.0.attn.sinks": Tensor.of("sinks", np.ones(4))}
    with pytest.raises(SymmetryError, match=r"layers\.0\.attn\.sinks"):
        veil.apply(strange)
    with pytest.raises(SymmetryError, match="missing"):
        veil.apply({name: tensor for name, tensor in tensors.items() if name != "norm.weight"})


def test_an_unknown_operation_is_refused() -> None:
    class Convolve:
        pass

    program = compile_program(MODELS["grouped-query"])
    strange = replace(program, operations=(*program.operations, Convolve()))  # type: ignore[arg-type]
    with pytest.raises(SymmetryError, match="Convolve"):
        planner.Walk(strange, {}).plan()


def test_a_norm_that_is_no_rms_norm_on_queries_is_refused() -> None:
    program = compile_program(MODELS["qk norm a head"])
    layered = tuple(
        replace(op, norm=replace(op.norm, kind="layer")) if isinstance(op, Normalize) and op.parts > 1 else op
        for op in program.operations
    )
    with pytest.raises(SymmetryError, match="no rms norm"):
        planner.Walk(replace(program, operations=layered), {}).plan()


def test_a_gain_of_zero_before_a_bias_is_refused() -> None:
    spec = MODELS["learned positions"]
    tensors = RandomStore(spec).tensors
    gain = tensors["norm.weight"].numpy().copy()
    gain[3] = 0.0
    tensors["norm.weight"] = Tensor.of("norm.weight", gain)
    with pytest.raises(SymmetryError, match="gain of 0"):
        Veil(spec, fixed_master()).apply(tensors)["norm.bias"].numpy()


@pytest.mark.parametrize("condition", [0.9, math.inf, math.nan])
def test_a_condition_that_no_matrix_has_is_refused(condition: float) -> None:
    with pytest.raises(SymmetryError, match="give 1 or a bit more"):
        Veil(MODELS["learned positions"], fixed_master(), condition)


def fixed_master() -> Any:
    from headrace.privacy.veil.keys import Master

    return Master(bytes(range(32)), "ab" * 32)


@pytest.mark.parametrize("condition", [0.9, 10.1, math.inf, math.nan])
def test_an_ill_conditioned_export_is_refused(condition: float) -> None:
    with pytest.raises(SymmetryError, match="from 1 to 10"):
        Export(condition=condition)


def test_half_precision_is_refused_for_ill_conditioned_keys(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(SymmetryError, match="half precision"):
        Export("f16")
    found = make_pair(BY_NAME["llama-tied"], tmp_path, dtype="f16", condition=1.0)
    assert set(found.veiled.weight_types) == {"f16"}
    for none in (0.5, float("inf"), float("nan")):
        with pytest.raises(SymmetryError, match="give 1"):
            Frames(plan_veil(MODELS["grouped-query"]), fixed_master(), none)


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    found = json.loads(path.read_text("utf-8"))
    edit(found)
    path.write_text(json.dumps(found), encoding="utf-8")


def resigned(folder: Path, pair: Pair) -> None:
    """Signs what lies there now with the right key, as an exporter with a defect would."""
    manifest = read_manifest(folder)
    files = {name: sha256_of([folder / name]) for name in manifest.files}
    write_manifest(folder, replace(manifest, files=files), pair.key)


def test_a_whole_artefact_passes(pair: Pair) -> None:
    manifest = verify(pair.folder, pair.key)
    assert manifest == verify(pair.folder)
    assert manifest.groups == {
        "stream": "orthogonal", "tokens": "permutation", "qk": "planes", "vo": "general", "units": "scaled"
    }  # fmt: skip
    assert "obfuscation" in manifest.profile
    files = {path.name for path in pair.folder.iterdir()}
    assert files == {"model.safetensors", "config.json", "veil.json"}


def test_a_changed_weight_is_caught(pair: Pair, copied: Path) -> None:
    path = copied / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtefactError, match=r"model\.safetensors was changed"):
        verify(copied)


@pytest.mark.parametrize("field", ["profile", "tolerance", "epoch", "files", "tensors", "public_key", "signature"])
def test_a_changed_manifest_is_caught(pair: Pair, copied: Path, field: str) -> None:
    values = {"tolerance": 0.1, "epoch": 5, "files": {}, "tensors": [], "profile": "sound"}
    change(copied / "veil.json", lambda found: found.update({field: values.get(field, found["public_key"][::-1])}))
    with pytest.raises(ArtefactError, match="signed"):
        verify(copied, pair.key)


def test_a_manifest_of_another_scheme_is_refused_though_it_is_signed(pair: Pair, copied: Path) -> None:
    write_manifest(copied, replace(read_manifest(copied), scheme="headrace/veil/v2"), pair.key)
    for key in (None, pair.key):
        with pytest.raises(ArtefactError, match="scheme headrace/veil/v2"):
            verify(copied, key)


def test_a_manifest_that_another_key_signed_is_caught(pair: Pair, copied: Path) -> None:
    other = fixed_key(pair.source, secret=9)
    manifest = read_manifest(copied)
    public = other.master.signer().public_key().public_bytes_raw().hex()
    write_manifest(copied, replace(manifest, public_key=public), other)
    verify(copied)
    with pytest.raises(ArtefactError, match="another key"):
        verify(copied, pair.key)


def test_files_that_are_missing_or_too_many_are_caught(pair: Pair, copied: Path) -> None:
    (copied / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"notes\.txt is not in the signed list"):
        verify(copied)
    (copied / "notes.txt").unlink()
    (copied / "config.json").unlink()
    with pytest.raises(ArtefactError, match=r"config\.json is missing"):
        verify(copied)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt", "spiece.model"])
def test_a_tokenizer_in_the_artefact_is_caught_and_before_export_refused(
    name: str, pair: Pair, copied: Path, tmp_path: Path
) -> None:
    (copied / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ArtefactError, match=name):
        verify(copied)
    target = tmp_path / "target"
    target.mkdir()
    (target / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ArtefactError, match=name):
        export(pair.source, pair.key, target)
    assert [path.name for path in target.iterdir()] == [name]
    assert TOKENIZER_FILES


def test_a_target_that_is_not_empty_is_refused(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(ArtefactError, match="not empty"):
        export(pair.source, pair.key, tmp_path)


def test_special_ids_left_where_they_were_are_caught(pair: Pair, copied: Path) -> None:
    specials = pair.key.specials
    assert {"bos_token_id", "eos_token_id"} <= specials.keys()
    config = json.loads((copied / "config.json").read_text("utf-8"))
    assert all(config[name] != ids for name, ids in specials.items())
    change(copied / "config.json", lambda found: found.update(specials))
    resigned(copied, pair)
    with pytest.raises(ArtefactError, match="not moved"):
        verify(copied, pair.key)


def test_a_tied_artefact_is_caught(pair: Pair, copied: Path) -> None:
    change(copied / "config.json", lambda found: found.update(tie_word_embeddings=True))
    resigned(copied, pair)
    with pytest.raises(ArtefactError, match="ties the head"):
        verify(copied, pair.key)


def test_the_key_of_another_model_or_epoch_is_refused(pair: Pair, tmp_path: Path) -> None:
    foreign = replace(pair.key, master=replace(pair.key.master, model="cd" * 32))
    with pytest.raises(KeyFileError, match="keygen"):
        export(pair.source, foreign, tmp_path / "veiled")
    assert not any(tmp_path.iterdir()), "nothing half made is left"
    with pytest.raises(ArtefactError, match="epoch 1"):
        verify(pair.folder, pair.key.rotated())


def test_a_wrong_key_gives_other_answers_and_no_crash(pair: Pair) -> None:
    wrong, ids = TokenMap.of(fixed_key(pair.source, secret=9)), texts(1)
    plain = logits(pair.plain, "whole", "reference", ids)
    found = logits(pair.veiled, "whole", "reference", [wrong.veiled(ids[0])])
    assert np.isfinite(found).all()
    assert (found[:, wrong.veiled(range(plain.shape[1]))].argmax(1) == plain.argmax(1)).mean() < 0.2


def test_two_epochs_share_neither_tokens_nor_weights(pair: Pair, tmp_path: Path) -> None:
    rotated = pair.key.rotated()
    export(pair.source, rotated, tmp_path / "next")
    first, second = TokenMap.of(pair.key), TokenMap.of(rotated)
    ids = list(range(pair.key.vocab))
    assert sum(a == b for a, b in zip(first.veiled(ids), second.veiled(ids), strict=True)) < 8
    again = load_model(tmp_path / "next", Ledger())
    for name, tensor in again.weights.weights.items():
        if not name.endswith("norm.weight"):
            assert difference(tensor.numpy(), pair.veiled.weights.weights[name].numpy()) > 0.1, name


def test_the_same_key_gives_the_same_files(pair: Pair, tmp_path: Path) -> None:
    export(pair.source, pair.key, tmp_path / "again")
    assert read_manifest(tmp_path / "again") == read_manifest(pair.folder)


def test_shards_and_their_index_read_back(pair: Pair, tmp_path: Path) -> None:
    manifest = export(pair.source, pair.key, tmp_path / "cut", Export(shard=100_000))
    assert "model.safetensors.index.json" in manifest.files and len(manifest.files) > 4
    assert all((tmp_path / "cut" / name).stat().st_size < 130_000 for name in manifest.files)
    verify(tmp_path / "cut", pair.key)
    cut = load_model(tmp_path / "cut", Ledger()).weights.weights
    for name, tensor in pair.veiled.weights.weights.items():
        assert np.array_equal(cut[name].numpy(), tensor.numpy())


def test_a_table_is_worked_on_in_pieces(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.privacy.veil import transform

    spec, weights = untied(pair.plain.spec, pair.plain.weights.weights)
    veil = Veil(spec, pair.key.master)
    (whole,) = veil.pieces("embed.weight", weights)
    monkeypatch.setattr(transform, "PIECE", 10 * spec.hidden)
    parts = list(veil.pieces("embed.weight", weights))
    assert [len(part) for part in parts] == [10] * 9 + [6]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-13)


def test_every_rule_has_a_reason_to_be(pair: Pair) -> None:
    """A plan is data: each rule names known frames, and each frame can be drawn."""
    plan = plan_veil(decoder(mlp={"experts": 5, "top_k": 2}))
    frames = Frames(plan, pair.key.master)
    for rule in plan.rules.values():
        names = [step.name for step in rule.steps if step.kind in ("push", "pull")] + [rule.along]
        for name in filter(None, names):
            basis = frames[name.replace("*", "3")]
            assert sorted(basis.order.tolist()) == list(range(len(basis.order)))
