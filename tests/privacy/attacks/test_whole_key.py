"""From a veiled toy decoder with every kind of key to the whole key and the prompt."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.attacks.keyed import bf16, embedding, key, orthogonal

pytest.importorskip("scipy.optimize", reason="needs the extra headrace[privacy]")

from headrace.privacy.attacks.align import align
from headrace.privacy.attacks.recovery import Clock, score_map
from headrace.privacy.attacks.whole_key import layer_key
from headrace.spec.errors import InvalidRequest

VOCAB, DIM, HEADS, SIZE, UNITS = 1024, 64, 4, 16, 96
RNG = np.random.default_rng(0)
PUBLIC = {
    "layers.0.attn_norm.weight": RNG.uniform(0.3, 2, DIM),
    "layers.0.attn.v.weight": RNG.standard_normal((HEADS * SIZE, DIM)),
    "layers.0.mlp_norm.weight": RNG.uniform(0.3, 2, DIM),
    "layers.0.mlp.gate.weight": RNG.standard_normal((UNITS, DIM)),
    "layers.0.mlp.up.weight": RNG.standard_normal((UNITS, DIM)),
}
PLANTED, EMBEDDING = key(VOCAB, DIM), embedding(VOCAB, DIM)
ORDER, UNIT_ORDER = RNG.permutation(HEADS), RNG.permutation(UNITS)
SCALES = RNG.uniform(0.5, 2, UNITS) * RNG.choice([-1, 1], UNITS)
KEYS = np.stack([orthogonal(RNG, SIZE) @ np.diag(RNG.uniform(1, 3, SIZE)) for _ in range(HEADS)])


def veiled() -> dict[str, np.ndarray]:
    q, attn, mlp = PLANTED.rotation, PUBLIC["layers.0.attn_norm.weight"], PUBLIC["layers.0.mlp_norm.weight"]
    value = (PUBLIC["layers.0.attn.v.weight"] * attn @ q).reshape(HEADS, SIZE, DIM)
    gate, up = (PUBLIC[f"layers.0.mlp.{name}.weight"] * mlp @ q for name in ("gate", "up"))
    return {
        "layers.0.attn_norm.weight": np.ones(DIM),
        "layers.0.attn.v.weight": bf16((KEYS @ value[ORDER]).reshape(-1, DIM)),
        "layers.0.mlp_norm.weight": np.ones(DIM),
        "layers.0.mlp.gate.weight": bf16(gate[UNIT_ORDER]),
        "layers.0.mlp.up.weight": bf16(up[UNIT_ORDER] * SCALES[:, None]),
    }


def test_the_whole_planted_key_is_found() -> None:
    clock = Clock()
    aligned = align(EMBEDDING, PLANTED.table(EMBEDDING))
    found = layer_key(PUBLIC, veiled(), 0, HEADS, aligned.rotation)
    assert (found.heads == ORDER).all() and (found.units == UNIT_ORDER).all()
    assert np.abs(found.scales / SCALES - 1).max() < 0.02 and np.abs(found.values - KEYS).max() < 0.1
    assert found.residual < 0.02
    units = score_map("units", found.units, UNIT_ORDER, clock.cost(*PUBLIC.values()))
    assert units.types.value == 1 and units.types.low > units.types.chance and units.cost.bytes > 0
    prompt = RNG.integers(VOCAB, size=40)
    assert (aligned.token_map[PLANTED.wire[prompt]] == prompt).all()


def test_with_another_rotation_units_are_found_by_chance_only() -> None:
    found = layer_key(PUBLIC, veiled(), 0, HEADS, key(2, DIM, seed=5).rotation)
    null = score_map("units", found.units, UNIT_ORDER, Clock().cost(EMBEDDING))
    assert null.types.contains_chance and found.residual > 0.5


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"lacks 'layers.1.attn_norm.weight'"):
        layer_key(PUBLIC, PUBLIC, 1, HEADS, np.eye(DIM))
    other = PUBLIC | {"layers.0.mlp.up.weight": np.ones((3, DIM))}
    with pytest.raises(InvalidRequest, match=r"mlp.up differs in shape"):
        layer_key(PUBLIC, other, 0, HEADS, np.eye(DIM))
