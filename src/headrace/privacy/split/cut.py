"""A model cut by depth: each piece is a ModelSpec of its own with a view of the model's weights.

A piece that does not begin with tokens begins with a table of states in the embedding's stead (see `piece.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace.model.tensor import Tensor
from headrace.spec.errors import InvalidRequest, UnsupportedModel
from headrace.spec.executor import WeightStore
from headrace.spec.model import Attention, Layer, Mlp, ModelSpec, Norm
from headrace.spec.program import Operation, compile_program, weight_names

_WIDTH = 16
NOTHING = Layer(
    Attention(heads=1, kv_heads=1, head_dim=_WIDTH, scale=1.0),
    Mlp(width=_WIDTH, activation="relu", gated=False),
    Norm(),
)
"""A block whose weights are zero and that adds nothing: an executor runs no model without one."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece before it is loaded. `table` float32 [rows, hidden]: where its states are put; None: it takes tokens."""

    spec: ModelSpec
    weights: WeightStore
    table: np.ndarray | None = None


def check_depth(spec: ModelSpec, depth: int) -> None:
    """Raises UnsupportedModel for an encoder, InvalidRequest for a depth that leaves the server nothing."""
    if not spec.causal:
        raise UnsupportedModel("An encoder has no head to keep back; split a model that generates text.")
    if not 0 <= depth < len(spec.layers):
        raise InvalidRequest(
            f"k is {depth} of {len(spec.layers)} blocks; keep 0 to {len(spec.layers) - 1} of them here.", "k"
        )


def before(spec: ModelSpec, weights: WeightStore, depth: int) -> Cut:
    """Embedding and the first `depth` blocks."""
    own = _zeros(spec) if depth == 0 else {}
    layers = spec.layers[:depth] or (NOTHING,)
    # Tied: the head that nobody asks for takes no table of its own.
    piece = _piece(spec, layers, tied=True, vocab=spec.vocab)
    return Cut(piece, PieceWeights(spec, weights, 0, own))


def behind(spec: ModelSpec, weights: WeightStore, depth: int, rows: int) -> Cut:
    """The blocks after the first `depth`, from states to states."""
    table = np.zeros((rows, spec.hidden), np.float32)
    piece = _piece(spec, spec.layers[depth:], tied=True, vocab=rows, **_NO_EMBEDDING)
    return Cut(piece, PieceWeights(spec, weights, depth, {"embed.weight": _shared(table)}), table)


def head(spec: ModelSpec, weights: WeightStore, rows: int) -> Cut:
    """Final norm and head, from states to logits."""
    table = np.zeros((min(rows, spec.vocab), spec.hidden), np.float32)
    own = _zeros(spec) | {"embed.weight": _shared(table)}
    piece = replace(spec, layers=(NOTHING,), tied=False, **_NO_EMBEDDING)
    return Cut(piece, PieceWeights(spec, weights, 0, own), table)


class PieceWeights:
    """A WeightStore: block n of the piece is block `first` + n of the model; `own` comes before the model's."""

    def __init__(self, spec: ModelSpec, store: WeightStore, first: int, own: Mapping[str, Tensor]) -> None:
        self._operations, self._store = compile_program(spec).operations, store
        self._first, self._own, self._tied = first, own, spec.tied

    def lease(self, operations: Sequence[Operation]) -> dict[str, Any]:
        names = dict.fromkeys(name for operation in operations for name in weight_names(operation))
        leased = self._store.lease(self._of_model(names))
        return {name: self._own[name] if name in self._own else leased[self._in_model(name)] for name in names}

    def release(self, operations: Sequence[Operation]) -> None:
        self._store.release(self._of_model(name for operation in operations for name in weight_names(operation)))

    def _of_model(self, names: Iterable[str]) -> list[Operation]:
        """The model's operations that read what the piece reads of these."""
        wanted = {self._in_model(name) for name in names if name not in self._own}
        return [operation for operation in self._operations if wanted.intersection(weight_names(operation))]

    def _in_model(self, name: str) -> str:
        if name == "head.weight" and self._tied:
            return "embed.weight"
        room, _, rest = name.partition(".")
        if room != "layers":
            return name
        block, _, part = rest.partition(".")
        return f"layers.{int(block) + self._first}.{part}"


_NO_EMBEDDING: dict[str, Any] = {"embed_scale": 1.0, "embed_norm": None, "learned_positions": 0, "token_types": 0}


def _piece(spec: ModelSpec, layers: tuple[Layer, ...], **more: Any) -> ModelSpec:
    """Without final norm and logits."""
    bare: dict[str, Any] = {"final_norm": None, "head_bias": False, "logit_softcap": None, "logit_scale": 1.0}
    return replace(spec, layers=layers, **bare, **more)


def _shared(table: np.ndarray) -> Tensor:
    """A tensor that is the array itself."""
    return Tensor("embed.weight", table.shape, "f32", lambda: table)


def _zeros(spec: ModelSpec) -> dict[str, Tensor]:
    """Weights of NOTHING as the only block."""
    shapes: dict[str, tuple[int, ...]] = {
        part: (_WIDTH, spec.hidden) for part in ("attn.q", "attn.k", "attn.v", "mlp.up")
    }
    shapes |= {part: (spec.hidden, _WIDTH) for part in ("attn.o", "mlp.down")}
    shapes |= {part: (spec.hidden,) for part in ("attn_norm", "mlp_norm")}
    names = {f"layers.0.{part}.weight": shape for part, shape in shapes.items()}
    return {name: Tensor.of(name, np.zeros(shape, np.float32)) for name, shape in names.items()}
