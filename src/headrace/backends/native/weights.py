"""Matrices in the form the kernels read: panels of 16 outputs, made from what the file stores.

`cpp/kernels.h` describes the panels and `cpp/matrix.h` reads them. Codes and scales of Q4_0, Q4_1, Q5_0,
Q5_1, Q8_0, Q4_K, Q5_K and Q6_K are moved, not rounded; floats stay as they are unless int8, int4 or bf16
are asked for; other ggml types are decoded and rounded to the codes of Q8_0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np

from headrace.backends.native import quantise
from headrace.backends.native.blocks import Codes, unpack
from headrace.model.tensor import Tensor, decode

Format: TypeAlias = Literal["codes4", "codes5", "codes6", "codes8", "bf16", "f16", "f32"]
WeightsOption: TypeAlias = Literal["auto", "int8", "int4", "bf16"]

PANEL = 16
ALIGNMENT = 64
CHUNK = 2**19
"""Weights that are taken apart at a time: few enough for their parts to stay in the processor's cache."""
_FLOATS = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}


@dataclass(frozen=True)
class Layout:
    """How a matrix [outputs, inputs] is stored; the fields of `struct Matrix`.

    value = d * (code - offset), or d * code + m where `affine`, for groups of `group` inputs; d and m are
    float32 where `wide`, else float16. Floats have groups of one input.
    """

    format: Format
    outputs: int
    inputs: int
    group: int
    offset: int
    affine: bool
    wide: bool

    @property
    def panels(self) -> int:
        return -(-self.outputs // PANEL)

    @property
    def panel_bytes(self) -> int:
        return self.inputs // self.group * self.group_type.itemsize

    @property
    def nbytes(self) -> int:
        return self.panels * self.panel_bytes

    @property
    def bits(self) -> int:
        """Bits of a code; 0 for floats."""
        return int(self.format[-1]) if self.format.startswith("codes") else 0

    @property
    def group_type(self) -> np.dtype:
        """One group of a panel. A quad, the codes of 4 inputs, is one uint32."""
        if not self.bits:
            return np.dtype([("values", _FLOATS[self.format], PANEL)])
        quads, scale = self.group // 4, "<f4" if self.wide else "<f2"
        fields: list[tuple] = [("low", "<u4", (quads if self.bits == 8 else quads // 2, PANEL))]
        if self.bits in (5, 6):
            fields.append(("high", "u1", (self.bits - 4, quads, 8)))
        fields += [(name, scale, PANEL) for name in ("dm" if self.affine else "d")]
        return np.dtype(fields)

    def groups(self, data: np.ndarray) -> np.ndarray:
        """The bytes of whole panels as records [panels, groups]."""
        return data.view(self.group_type).reshape(-1, self.inputs // self.group)


@dataclass(frozen=True)
class PackedMatrix(Layout):
    """A layout and its bytes: `data` is uint8 [panels * panel_bytes] and starts at a multiple of 64."""

    data: np.ndarray

    @classmethod
    def of(cls, layout: Layout, data: np.ndarray) -> PackedMatrix:
        return cls(**asdict(layout), data=data)

    def decoded(self) -> np.ndarray:
        """float32 [outputs, inputs]; of an exact format the bits that `Tensor.numpy()` gives."""
        groups = self.groups(self.data)
        if not self.bits:
            values = decode(groups["values"], self.format)
            return values.transpose(0, 2, 1).reshape(-1, self.inputs)[: self.outputs]
        codes = _read_codes(self, groups).astype(np.float32)
        d = _by_output(groups["d"])
        values = d * codes + _by_output(groups["m"]) if self.affine else d * (codes - np.float32(self.offset))
        return values.reshape(-1, self.inputs)[: self.outputs]


_FORMS: dict[str, tuple[Format, int, int, bool, bool]] = {
    "Q4_0": ("codes4", 32, 8, False, False),
    "Q4_1": ("codes4", 32, 0, True, False),
    "Q5_0": ("codes5", 32, 16, False, False),
    "Q5_1": ("codes5", 32, 0, True, False),
    "Q8_0": ("codes8", 32, 128, False, False),
    "Q4_K": ("codes4", 32, 0, True, True),
    "Q5_K": ("codes5", 32, 0, True, True),
    "Q6_K": ("codes6", 16, 32, False, True),
    "f32": ("f32", 1, 0, False, False),
    "f16": ("f16", 1, 0, False, False),
    "bf16": ("bf16", 1, 0, False, False),
    "f64": ("f32", 1, 0, False, False),
}
"""Stored kind -> format, group, offset, affine, wide."""
_OPTIONS = {"int8": "Q8_0", "int4": "Q4_1", "bf16": "bf16"}


def layout_of(tensor: Tensor, weights: WeightsOption = "auto") -> Layout:
    """The layout of a tensor [outputs, inputs], or of one of [experts, outputs, inputs]. Reads no weight."""
    outputs, inputs = tensor.shape[-2:]
    kind = tensor.kind if tensor.kind in _FORMS else "Q8_0"
    if tensor.is_float and weights != "auto" and (weights == "bf16" or inputs % quantise.GROUP == 0):
        kind = _OPTIONS[weights]
    form, group, offset, affine, wide = _FORMS[kind]
    return Layout(form, outputs, inputs, group, offset, affine, wide)


def is_rounded(tensor: Tensor) -> bool:
    """Whether a ggml type has no form of its own here and is rounded to that of Q8_0."""
    return tensor.kind not in _FORMS


def count(tensor: Tensor) -> int:
    """Matrices that a tensor packs to."""
    return math.prod(tensor.shape[:-2])


def pack(tensor: Tensor, weights: WeightsOption = "auto") -> list[PackedMatrix]:
    """A tensor [outputs, inputs] as one matrix, or [experts, outputs, inputs] as one an expert.

    `weights` applies to float tensors only; one whose inputs are no multiple of 32 is not quantised. Raises
    UnsupportedModel for a ggml type that nothing here can decode.
    """
    layout = layout_of(tensor, weights)
    packed = [aligned_bytes(layout.nbytes) for _ in range(count(tensor))]
    for number, at, chunk in panels(tensor, weights):
        packed[number][at : at + len(chunk)] = chunk
    return [PackedMatrix.of(layout, data) for data in packed]


def panels(tensor: Tensor, weights: WeightsOption = "auto") -> Iterator[tuple[int, int, np.ndarray]]:
    """The bytes of `pack`'s matrices some panels at a time: number of the matrix, place within it, bytes."""
    layout, stored = layout_of(tensor, weights), tensor.stored()
    step = max(CHUNK // (PANEL * layout.inputs), 1)
    for number, matrix in enumerate(stored.reshape(-1, *stored.shape[-2:])):
        for panel in range(0, layout.panels, step):
            rows = matrix[panel * PANEL : (panel + step) * PANEL]
            yield number, panel * layout.panel_bytes, _pack_rows(rows, tensor.kind, layout)


def aligned_bytes(nbytes: int) -> np.ndarray:
    """uint8 [nbytes] that starts at a multiple of 64."""
    spare = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -spare.ctypes.data % ALIGNMENT
    return spare[start : start + nbytes]


def _pack_rows(rows: np.ndarray, kind: str, layout: Layout) -> np.ndarray:
    """Stored rows as the bytes of their panels; the last one is filled up with zeros."""
    count = -(-len(rows) // PANEL)
    groups = np.empty((count, layout.inputs // layout.group), layout.group_type)
    if layout.bits:
        _write_codes(layout, groups, _codes(rows, kind, layout))
    else:
        groups["values"] = _by_panel(_floats(rows, kind, layout.format))
    return groups.reshape(-1).view(np.uint8)


def _floats(rows: np.ndarray, kind: str, form: Format) -> np.ndarray:
    if kind == form or form != "bf16":
        return rows
    return quantise.bf16(decode(rows, kind))


def _codes(rows: np.ndarray, kind: str, layout: Layout) -> Codes:
    if kind in _FORMS and kind not in _FLOATS and kind != "f64":
        return unpack(rows, kind)
    values = decode(rows, kind)
    return quantise.int8(values) if layout.bits == 8 else quantise.int4(values)


def _by_panel(rows: np.ndarray) -> np.ndarray:
    """[rows, n] -> [panels, n, 16]."""
    missing = -len(rows) % PANEL
    if missing:
        rows = np.concatenate([rows, np.zeros((missing, rows.shape[1]), rows.dtype)])
    return rows.reshape(-1, PANEL, rows.shape[1]).transpose(0, 2, 1)


def _by_output(scales: np.ndarray) -> np.ndarray:
    """[panels, groups, 16] -> float32 [outputs, groups, 1]."""
    return scales.transpose(0, 2, 1).reshape(-1, scales.shape[1], 1).astype(np.float32)


def _write_codes(layout: Layout, groups: np.ndarray, rows: Codes) -> None:
    size, quads = groups.shape, np.ascontiguousarray(rows.codes).view("<u4")
    if layout.bits == 8:
        low = quads
    else:
        low = quads & 0x0F0F0F0F
        low = low[:, 0::2] | low[:, 1::2] << 4
    groups["low"] = _by_panel(low).reshape(*size, -1, PANEL)
    if layout.bits in (5, 6):
        whole = np.ascontiguousarray(_by_panel(quads))
        for plane in range(layout.bits - 4):
            bits = (whole >> np.uint32(4 + plane) & 0x01010101).view(np.uint8)
            groups["high"][:, :, plane] = np.packbits(bits, axis=-1, bitorder="little").reshape(*size, -1, 8)
    groups["d"] = _by_panel(rows.d)
    if rows.m is not None:
        groups["m"] = _by_panel(rows.m)


def _read_codes(layout: Layout, groups: np.ndarray) -> np.ndarray:
    """The inverse of `_write_codes`: uint8 [outputs, groups, inputs of a group]."""
    quads = groups["low"]
    if layout.bits != 8:
        quads = np.stack([quads & 0x0F0F0F0F, quads >> 4 & 0x0F0F0F0F], axis=3).reshape(*groups.shape, -1, PANEL)
    if layout.bits in (5, 6):
        for plane in range(layout.bits - 4):
            bits = np.unpackbits(groups["high"][:, :, plane], axis=-1, bitorder="little")
            quads = quads | bits.view("<u4") << (4 + plane)
    return np.ascontiguousarray(quads.transpose(0, 3, 1, 2)).view(np.uint8).reshape(-1, groups.shape[1], layout.group)
