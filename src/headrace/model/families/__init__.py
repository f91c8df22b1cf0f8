"""One file a family; found by `model_type` of config.json or `general.architecture` of a GGUF file."""

from __future__ import annotations

from headrace.model.families import (
    bert,
    gemma2,
    gemma3,
    gpt2,
    llama,
    mistral,
    mixtral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
)
from headrace.model.families.common import Family
from headrace.spec.errors import UnsupportedModel

FAMILIES: tuple[Family, ...] = tuple(
    module.FAMILY
    for module in (llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2, gemma3, phi3, olmo2, gpt2, bert)
)


def by_model_type(model_type: str) -> Family:
    """Raises UnsupportedModel naming the type and those that are supported."""
    known = {name: family for family in FAMILIES for name in family.model_types}
    return _pick(known, model_type)


def by_architecture(architecture: str) -> Family:
    """Raises UnsupportedModel naming the architecture and those that are supported."""
    known = {name: family for family in FAMILIES for name in family.architectures}
    return _pick(known, architecture)


def by_name(name: str) -> Family:
    """The family of a ModelSpec. Raises UnsupportedModel naming those that are supported."""
    return _pick({family.name: family for family in FAMILIES}, name)


def _pick(known: dict[str, Family], name: str) -> Family:
    if name not in known:
        supported = ", ".join(sorted(known))
        raise UnsupportedModel(f"Architecture {name!r} is not supported; choose a model of one of: {supported}.")
    return known[name]
