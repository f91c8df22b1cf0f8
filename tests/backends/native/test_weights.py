"""Packed matrices decode to the bits of the file; rounding to int8, int4 and bf16 is as good as it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.backends.native.weights import PANEL, PackedMatrix, WeightsOption, is_rounded, layout_of, pack
from headrace.model.tensor import FLOAT_KINDS, Tensor, decode, row_bytes

quants = pytest.importorskip("gguf.quants")

EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
SCALES = {
    "Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q2_K": (80, 82), "Q3_K": (108,)
}  # fmt: skip
"""Where float16 values stand in a block, if not only at its start."""
SHAPES = ((64, 256), (33, 512), (1, 256), (16, 768))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def of(array: np.ndarray, kind: str, shape: tuple[int, ...] | None = None) -> Tensor:
    return Tensor("w", shape or array.shape, kind, lambda: array)


def random_blocks(kind: str, shape: tuple[int, ...]) -> Tensor:
    """Every bit of the blocks random, but for scales that are finite: every code and every scale occurs."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    rng = np.random.default_rng(shape[-1])
    size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
    stored = rng.integers(0, 256, (*shape[:-1], row_bytes(kind, shape[-1])), np.uint8)
    blocks = stored.reshape(-1, size)
    for start in SCALES.get(kind, (0,)):
        scales = rng.normal(0, 0.1, len(blocks)).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8).reshape(-1, 2)
    return of(stored, kind, shape)


def floats(kind: str, *shape: int) -> Tensor:
    values = normal(*shape)
    return of(
        (values.view(np.uint32) >> 16).astype(np.uint16) if kind == "bf16" else values.astype(FLOAT_KINDS[kind]), kind
    )


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", EXACT)
def test_exact_formats_keep_every_bit(kind: str, shape: tuple[int, int]) -> None:
    tensor = random_blocks(kind, shape)
    (matrix,) = pack(tensor, "int4")  # an option for float tensors only
    assert same_bits(matrix.decoded(), tensor.numpy())
    assert not is_rounded(tensor)


@pytest.mark.parametrize("kind", ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"))
def test_blocks_as_ggml_quantises_them(kind: str) -> None:
    stored = quants.quantize(normal(48, 320), quants.GGMLQuantizationType[kind])
    tensor = of(stored, kind, (48, 320))
    (matrix,) = pack(tensor)
    assert same_bits(matrix.decoded(), tensor.numpy())


@pytest.mark.parametrize("kind", ("Q4_1", "Q5_K", "Q6_K", "f16"))
def test_a_matrix_of_several_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = of(normal(200, 256).astype(np.float16), "f16") if kind == "f16" else random_blocks(kind, (200, 256))
    (whole,) = pack(tensor)
    monkeypatch.setattr("headrace.backends.native.weights.CHUNK", 16 * 256 * 3)
    (parts,) = pack(tensor)
    assert (whole.data == parts.data).all()


def slow_codes(matrix: PackedMatrix, output: int, input: int) -> float:
    """One weight read byte by byte, as the comment in kernels.h has it."""
    quads, bits = matrix.group // 4, matrix.bits
    group, inside = divmod(input, matrix.group)
    quad, byte = inside // 4, 4 * (output % PANEL) + inside % 4
    width = 4 if matrix.wide else 2
    low, high = quads * 64 if bits == 8 else quads * 32, quads * 8 * (bits - 4 if bits in (5, 6) else 0)
    step = low + high + PANEL * width * (2 if matrix.affine else 1)
    at = matrix.data[output // PANEL * matrix.panel_bytes + group * step :][:step]
    if bits == 8:
        code = int(at[quad * 64 + byte])
    else:
        code = int(at[quad // 2 * 64 + byte]) >> 4 * (quad % 2) & 15
        for plane in range(bits - 4):
            code |= (int(at[low + (plane * quads + quad) * 8 + byte // 8]) >> byte % 8 & 1) << 4 + plane
    scales = at[low + high :].view(np.float32 if matrix.wide else np.float16).astype(np.float32)
    d = scales[output % PANEL]
    if not matrix.affine:
        return float(d * np.float32(code - matrix.offset))
    return float(d * np.float32(code) + scales[PANEL + output % PANEL])


@pytest.mark.parametrize("kind", EXACT)
def test_the_bytes_stand_where_the_kernels_read_them(kind: str) -> None:
    tensor = random_blocks(kind, (40, 256))
    (matrix,) = pack(tensor)
    values = tensor.numpy()
    rng = np.random.default_rng(1)
    for output, input in zip(rng.integers(0, 40, 300), rng.integers(0, 256, 300), strict=True):
        assert slow_codes(matrix, int(output), int(input)) == values[output, input]


@pytest.mark.parametrize("kind", [*EXACT, "f32", "f16", "bf16"])
def test_outputs_beyond_the_last_are_zero(kind: str) -> None:
    (matrix,) = pack(floats(kind, 17, 256) if kind in FLOAT_KINDS else random_blocks(kind, (17, 256)))
    filled = replace(matrix, outputs=32)
    assert (filled.decoded()[17:] == 0).all()
    last = filled.groups(filled.data)[1]
    assert all((last[name][..., 1:] == 0).all() for name in ("d", "m") if name in matrix.group_type.fields)
    assert matrix.data.ctypes.data % 64 == 0 and len(matrix.data) == matrix.panels * matrix.panel_bytes


@pytest.mark.parametrize("kind", ("f32", "f16", "bf16"))
@pytest.mark.parametrize("shape", ((40, 37), (16, 64)), ids=str)
def test_floats_stay_as_they_are(kind: str, shape: tuple[int, int]) -> None:
    tensor = floats(kind, *shape)
    (matrix,) = pack(tensor)
    assert matrix.format == kind and same_bits(matrix.decoded(), tensor.numpy())
    (turned,) = pack(tensor.transpose())
    assert same_bits(turned.decoded(), np.ascontiguousarray(tensor.numpy().T))


def test_float64_is_held_as_float32() -> None:
    values = np.random.default_rng(0).standard_normal((20, 40))
    (matrix,) = pack(of(values, "f64"))
    assert matrix.format == "f32" and same_bits(matrix.decoded(), values.astype(np.float32))


def error(matrix: PackedMatrix, values: np.ndarray) -> float:
    return float(np.sqrt(((matrix.decoded() - values) ** 2).mean() / (values**2).mean()))


@pytest.mark.parametrize(
    ("weights", "kind", "allowed"), (("int8", "Q8_0", 1.001), ("int4", "Q4_1", 0.96)), ids=("int8", "int4")
)
def test_rounding_is_no_worse_than_ggml(weights: WeightsOption, kind: str, allowed: float) -> None:
    values = normal(64, 512) * 0.02
    (ours,) = pack(of(values, "f32"), weights)
    theirs = quants.quantize(values, quants.GGMLQuantizationType[kind])
    (peer,) = pack(of(theirs, kind, values.shape))
    assert (ours.format, ours.group, ours.offset, ours.affine) == (peer.format, peer.group, peer.offset, peer.affine)
    assert error(ours, values) <= allowed * error(peer, values)


@pytest.mark.parametrize("weights", ("int8", "int4"))
def test_rounding_meets_the_odd_groups(weights: WeightsOption) -> None:
    values = np.zeros((16, 128), np.float32)
    values[:, 32:64] = 0.5
    values[:, 64] = -3.0
    values[:, 96:] = np.float32(1e-12)
    (matrix,) = pack(of(values, "f32"), weights)
    decoded = matrix.decoded()
    assert np.isfinite(decoded).all()
    assert np.abs(decoded - values).max() <= 0.5 * 2**-8


def test_bf16_is_rounded_to_nearest_even() -> None:
    values = np.concatenate([normal(15, 40), np.float32([[1 + 2**-8, 1 + 3 * 2**-8, np.inf, -np.inf] * 10])])
    (matrix,) = pack(of(values, "f32"), "bf16")
    theirs = quants.quantize(values, quants.GGMLQuantizationType.BF16)
    assert same_bits(matrix.decoded(), decode(theirs.view(np.uint16), "bf16"))


@pytest.mark.parametrize("weights", ("int8", "int4"))
def test_inputs_that_are_no_whole_groups_stay_float(weights: WeightsOption) -> None:
    tensor = of(normal(16, 40).astype(np.float16), "f16")
    assert layout_of(tensor, weights).format == "f16"
    assert same_bits(pack(tensor, weights)[0].decoded(), tensor.numpy())


@pytest.mark.parametrize("kind", ("Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS"))
def test_other_types_are_rounded_to_q8_0(kind: str) -> None:
    tensor = random_blocks(kind, (32, 512))
    (matrix,) = pack(tensor)
    values = tensor.numpy()
    assert is_rounded(tensor) and matrix.format == "codes8"
    step = np.abs(values.reshape(32, -1, 32)).max(-1, keepdims=True) / 127
    assert (np.abs((matrix.decoded() - values).reshape(32, -1, 32)) <= 0.51 * step + 1e-7).all()


@pytest.mark.parametrize("make", (lambda: random_blocks("Q4_K", (3, 20, 256)), lambda: of(normal(3, 20, 64), "f32")))
def test_experts_are_packed_one_by_one(make: Callable[[], Any]) -> None:
    tensor = make()
    matrices = pack(tensor)
    assert len(matrices) == 3
    for index, matrix in enumerate(matrices):
        assert same_bits(matrix.decoded(), tensor.numpy()[index])


@pytest.mark.parametrize("name", ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"))
def test_real_files_keep_every_bit(name: str) -> None:
    """Rows of the smallest three matrices of each kind of a packaged model."""
    from headrace.model.catalogue import find_local
    from headrace.model.gguf_file import read_gguf

    local = find_local(name)
    if local is None or not Path(local.path).is_file():
        pytest.skip(f"{name} is not here; run `headrace pull {name}`")
    tensors = sorted(read_gguf(local.path).tensors.values(), key=lambda tensor: tensor.nbytes)
    tensors = [tensor for tensor in tensors if len(tensor.shape) == 2]
    for kind in {tensor.kind for tensor in tensors}:
        for tensor in [tensor for tensor in tensors if tensor.kind == kind][:3]:
            rows = tensor.rows(0, min(tensor.shape[0], 2000))
            assert same_bits(pack(rows)[0].decoded(), rows.numpy()), tensor
