"""Rotary settings of config.json (old and new spelling) and of GGUF metadata -> spec.Rope."""

from __future__ import annotations

import math
from typing import Any

from headrace.model.config import Config
from headrace.spec.errors import ModelFileError
from headrace.spec.model import Rope

_READ = {
    "none": set[str](),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "factors"},
    "yarn": {
        "factor", "original_max_position_embeddings", "attention_factor", "attn_factor", "beta_fast", "beta_slow",
        "truncate", "mscale", "mscale_all_dim",
    },
    "longrope": {
        "factor", "original_max_position_embeddings", "attention_factor", "attn_factor", "long_factor", "short_factor",
    },
}  # fmt: skip
_ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def read_rope(config: Config, head_dim: int, layer_type: str | None = None, theta: float = 10000.0) -> Rope:
    """The rotation of one layer type. `theta` is the family's base where the file names none.

    `layer_type` picks an entry where `rope_parameters` has one for each (Gemma 3). Keys outside of
    `rope_parameters` (`rope_theta`, `rope_scaling`, `partial_rotary_factor`) are the older spelling.
    """
    given = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    config.get("rope_scaling")
    if layer_type is not None and isinstance(given.get(layer_type), dict):
        given = dict(given[layer_type])
    elif any(isinstance(value, dict) for value in given.values()):
        raise config.refusal("rope_parameters", given)
    old_theta, old_part = config.get("rope_theta", theta), config.get("partial_rotary_factor", 1.0)
    base = float(given.get("rope_theta") or old_theta)
    dim = int(config.get("rope_dim") or head_dim * float(given.get("partial_rotary_factor") or old_part))
    return scaled_rope(config, given, dim, base)


def scaled_rope(config: Config, given: dict[str, Any], dim: int, theta: float) -> Rope:
    kind = _kind(config, given)
    unknown = {k: v for k, v in given.items() if k not in _READ[kind] | _ALWAYS and v is not None}
    if kind != "none" and unknown:
        raise config.refusal(f"rope_scaling.{next(iter(unknown))}", next(iter(unknown.values())))
    limit = int(config.need("max_position_embeddings"))
    original = int(
        config.get("original_max_position_embeddings") or given.get("original_max_position_embeddings") or limit
    )
    if kind == "none":
        return Rope(dim, theta)
    if kind == "longrope":
        return _longrope(config, given, dim, theta, original, limit)
    if kind == "llama3" and "factors" in given:
        return Rope(dim, theta, "llama3", original=original, factors=_factors(config, given, "factors", dim))
    factor = given.get("factor") or (limit / original if kind == "yarn" else None)
    if factor is None:
        raise ModelFileError(f"{config.source} has no setting rope_scaling.factor; download the model again.")
    if kind == "yarn":
        return _yarn(given, Rope(dim, theta, "yarn", float(factor), original))
    if kind == "llama3":
        low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
        return Rope(dim, theta, "llama3", float(factor), original, low, high)
    return Rope(dim, theta, kind, float(factor), limit)


def _kind(config: Config, given: dict[str, Any]) -> Any:
    name = given.get("rope_type") or given.get("type") or "default"
    kind = {"default": "none", "su": "longrope"}.get(name, name)
    if kind not in _READ:
        raise config.refusal("rope_scaling.type", name)
    if "long_factor" in given:
        return "longrope"
    return "llama3" if kind == "none" and "factors" in given else kind


def _yarn(given: dict[str, Any], rope: Rope) -> Rope:
    attention = given.get("attention_factor")
    if given.get("attn_factor") is not None and rope.factor > 1:
        attention = given["attn_factor"] * (0.1 * math.log(rope.factor) + 1)
    return Rope(
        rope.dim, rope.theta, "yarn", rope.factor, rope.original,
        beta_fast=float(given.get("beta_fast") or 32), beta_slow=float(given.get("beta_slow") or 1),
        attention_factor=attention, truncate=bool(given.get("truncate", True)),
        mscale=float(given.get("mscale") or 0), mscale_all_dim=float(given.get("mscale_all_dim") or 0),
    )  # fmt: skip


def _longrope(config: Config, given: dict[str, Any], dim: int, theta: float, original: int, limit: int) -> Rope:
    """One set of divisors for the whole run: long ones where it may grow beyond the original context."""
    factor = float(given.get("factor") or limit / original)
    which = "long_factor" if (config.context or limit) > original else "short_factor"
    attention = given.get("attention_factor") or given.get("attn_factor")
    return Rope(
        dim, theta, "longrope", factor, original, attention_factor=attention,
        factors=_factors(config, given, which, dim),
    )  # fmt: skip


def _factors(config: Config, given: dict[str, Any], key: str, dim: int) -> tuple[float, ...]:
    factors = tuple(float(value) for value in given.get(key) or ())
    if len(factors) != dim // 2:
        raise ModelFileError(
            f"{config.source} has {len(factors)} values in {key} where {dim // 2} belong; download the model again."
        )
    return factors
