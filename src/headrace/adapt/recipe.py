"""A recipe: everything that decides what a training run gives, in one frozen value and one file.

The same recipe gives the same weights bit for bit on one kind of machine with one number of threads. Its
`digest` names the results that are kept of it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from headrace.spec.errors import InvalidRequest, ModelFileError

FORMAT = 1
"""Goes up whenever the trainer makes other weights of the same recipe."""
MOST_PARAMETERS = 5_000_000
"""Full training is meant for models that two cores train in minutes."""


class Full(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="full"):
    """A model from scratch, of the llama family; `width` is that of its feed-forward blocks."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    width: int
    context: int
    head_dim: int | None = None


class Noise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Noisy gradients (DP-SGD, arXiv 1607.00133), so that no single lesson decides much.

    Each lesson's gradient is cut to the length `clip`; their sum gets Gaussian noise of deviation
    `scale * clip` in every coordinate. What privacy budget (epsilon) that is, is not counted here.
    """

    clip: float = 1.0
    scale: float = 0.5


class Lora(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lora"):
    """A low-rank adapter (LoRA, arXiv 2106.09685) on the named projections of every layer of `base`.

    `base`: a path or a name of the catalogue. `targets`: of q, k, v, o, gate, up and down. The adapter adds
    `alpha / rank * B @ A` to a matrix. With `noise` its steps follow noisy gradients.

    `method`: *adamw*; or *muon*, where a step has the same length in all directions of a matrix's gradient and no
    memory of those before (Jordan et al. 2024, kellerjordan.github.io/posts/muon, without momentum): one visit then
    leaves more of a lesson behind. It takes `rate`, `warmup`, `final` and `clip` of the optimiser alone.
    `a_rate`: what share of the rate the factors A take (LoRA+, arXiv 2402.12354): what B has learned is read through
    A, and is forgotten where A moves away under it.
    """

    base: str
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q", "k", "v", "o")
    noise: Noise | None = None
    method: Literal["adamw", "muon"] = "adamw"
    a_rate: float = 1.0


class ValueHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="head"):
    """A probability read off the hidden state `state` of `base`: linear, or with one layer of `width` units."""

    base: str
    state: str = "hidden:-1"
    width: int = 0


Target: TypeAlias = Full | Lora | ValueHead


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the lessons come from: a generator, its version, and its settings."""

    name: str
    version: int = 1
    settings: dict[str, Any] = {}


class Optimiser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """AdamW (arXiv 1711.05101). The rate rises over `warmup` steps and falls along a cosine to `final` of itself.

    `decay` weighs on matrices alone; gradients longer than `clip` are cut to it.
    """

    rate: float = 1e-3
    warmup: int = 50
    final: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    decay: float = 0.1
    clip: float = 1.0

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of step `step` of `steps`, counted from 0."""
        from math import cos, pi

        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(steps - self.warmup, 1)
        return self.rate * (self.final + (1 - self.final) * (1 + cos(pi * share)) / 2)


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`batch`: lessons a step. `threads`: of the machine, since sums come out otherwise with another number."""

    name: str
    train: Target
    lessons: Source
    steps: int
    batch: int
    seed: int = 0
    threads: int = 2
    optimiser: Optimiser = Optimiser()

    def __post_init__(self) -> None:
        for field in ("steps", "batch", "threads"):
            if getattr(self, field) < 1:
                raise InvalidRequest(f"{field} is {getattr(self, field)}; give at least 1.", field)

    @property
    def digest(self) -> str:
        """Hex, of all that decides the result."""
        held = msgspec.json.encode([FORMAT, self], order="deterministic")
        return hashlib.sha256(held).hexdigest()[:32]


def read_recipe(path: Path) -> Recipe:
    """Reads a .toml or .json file. Raises ModelFileError where it cannot be read or is not a recipe."""
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
    try:
        return decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except (msgspec.MsgspecError, InvalidRequest, ValueError) as error:
        raise ModelFileError(f"{path.name} is not a recipe ({str(error).rstrip('.')}); correct it.") from None


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Writes JSON, which `read_recipe` reads back to an equal recipe."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(recipe)) + b"\n")
