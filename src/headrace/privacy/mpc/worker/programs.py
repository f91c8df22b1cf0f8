"""JAX functions compiled to SPU's own code, once for every kind of program and shape of its inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import spu
from jax import lax
from spu.utils import frontend

from headrace.privacy.mpc import approximations, transformer
from headrace.privacy.mpc.transformer import Shape

FUNCTIONS = approximations.approximate(jnp, lax.rsqrt)
OPERATIONS: dict[str, Callable[..., Any]] = {
    "multiply": lambda x, y: x * y,
    "square": lambda x: x * x,
    "scale": lambda x: x * 0.7,
    "matmul": jnp.matmul,
    "compare": lambda x, y: x < y,
    "choose": lambda x, y: jnp.where(x < y, x, y),
    "largest": lambda x: jnp.max(x, axis=-1, keepdims=True),
    "reciprocal": FUNCTIONS.reciprocal,
    "rsqrt": FUNCTIONS.rsqrt,
    "exponential": FUNCTIONS.exp,
    "silu": partial(FUNCTIONS.activation, "silu"),
    "gelu": partial(FUNCTIONS.activation, "gelu"),
}


def function_of(program: dict[str, Any]) -> Callable[..., Any]:
    """What a program computes: an operation, or the embedding, a block or the head of a `shape`."""
    kind = program["kind"]
    if kind in OPERATIONS:
        return OPERATIONS[kind]
    if kind == "embed":
        return partial(transformer.embed, jnp)
    shape = Shape(**program["shape"])
    if kind == "head":
        rows = program["rows"]
        return lambda h, table: transformer.head(jnp, FUNCTIONS, shape, h[-rows:], table)
    names = shape.weights()
    return lambda h, *w: transformer.block(jnp, FUNCTIONS, shape, h, dict(zip(names, w, strict=True)))


class Programs:
    """Compiled programs by kind and shapes."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[np.ndarray, tuple[int, ...]]] = {}

    def compiled(
        self, program: dict[str, Any], shapes: Sequence[tuple[int, ...]]
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """SPU's code as bytes, and the shape of its result."""
        key = json.dumps([program, shapes])
        if key not in self._made:
            self._made[key] = compiled(function_of(program), shapes)
        return self._made[key]


def compiled(function: Callable[..., Any], shapes: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, tuple[int, ...]]:
    """A function of secret arrays of these shapes."""

    def computed(*arrays: Any) -> Any:
        return function(*arrays)

    names = [f"in{i}" for i in range(len(shapes))]
    secret = [spu.Visibility.VIS_SECRET] * len(shapes)
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    kind = frontend.Kind.JAX
    executable, result = frontend.compile(kind, computed, arguments, {}, names, secret, lambda flat: ["out"])
    code = executable.code
    return np.frombuffer(code.encode() if isinstance(code, str) else code, np.uint8), tuple(result.shape)
