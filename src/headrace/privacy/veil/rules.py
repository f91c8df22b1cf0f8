"""A veil's plan as data: which group keys each buffer, and what is done to each tensor.

Frames are the keyed bases of buffers: `tokens` (ids and logits), `stream` (x, h and o), and in a layer `q`, `k`,
`v`, `a` (attention's output), `gate`, `up`, `m` (the activated product), `experts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from headrace.privacy.veil.errors import SymmetryError

Group: TypeAlias = Literal[
    "identity", "permutation", "signed_one", "signed", "orthogonal_one", "orthogonal", "signs", "planes", "general",
    "scaled",
]  # fmt: skip
"""permutation: S_n · signed_one: +-S_n · signed: signed permutations · orthogonal_one: +-1 and O(n - 1), which
keep the mean · orthogonal: O(n) · signs: +-1 a plane · planes: turn and scale a plane · general: GL(n) ·
scaled: a permutation with factors."""

_INSIDE: Mapping[Group, frozenset[Group]] = MappingProxyType(
    {
        "identity": frozenset(),
        "permutation": frozenset(),
        "signed_one": frozenset({"permutation"}),
        "signed": frozenset({"permutation", "signed_one"}),
        "orthogonal_one": frozenset({"permutation", "signed_one"}),
        "orthogonal": frozenset({"permutation", "signed_one", "signed", "orthogonal_one"}),
        "signs": frozenset(),
        "planes": frozenset({"signs"}),
        "general": frozenset({"signs", "planes", "permutation", "signed", "orthogonal"}),
        "scaled": frozenset({"permutation"}),
    }
)


def choose(where: str, allowed: Group, asked: Group | None) -> Group:
    """The group asked for, or the largest. Raises SymmetryError for one that does not lie in the largest."""
    if asked is None or asked == allowed:
        return allowed
    if asked != "identity" and asked not in _INSIDE[allowed]:
        raise SymmetryError(
            f"{where} cannot be keyed by {asked!r}: the model would compute something else; {allowed!r} is the most"
            " that holds there, so ask for that."
        )
    return asked


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream."""

    group: Group
    size: int


@dataclass(frozen=True, slots=True)
class Heads:
    """One layer's attention: K key heads with `queries` query heads each.

    `order`: heads and the queries of each are permuted. `qk`: group of each key head's queries and keys, of which
    the first `rope` values rotate. `gains`: query and key norms take a factor and its inverse, a plane, one set for
    all heads ("head") or one a key head ("full"). `vo`: group of each key head's values.
    """

    count: int
    queries: int
    width: int
    rope: int
    qk: Group
    vo: Group
    order: Group = "permutation"
    gains: Literal["none", "head", "full"] = "none"


@dataclass(frozen=True, slots=True)
class Units:
    """A feed-forward block's hidden units, or those of each of `experts` experts, which are permuted themselves.

    `up`: group of the units; factors stand on the up projection of a gated block. `gate`: whether the activation
    carries positive factors (relu).
    """

    size: int
    up: Group
    gate: bool
    gated: bool
    experts: int = 0
    order: Group = "permutation"


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on an axis of a tensor.

    push, pull: by a frame, as outputs or inputs of the buffer. times: the inputs by another tensor of the source;
    over: divided by one. one: becomes ones. A frame's `*` is the number of the expert.
    """

    kind: Literal["push", "pull", "times", "over", "one"]
    axis: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one canonical tensor is made, from the source's tensor of the same name.

    `along`: a frame that permutes the first axis, which is then worked off piece by piece.
    """

    tensor: str
    steps: tuple[Step, ...]
    along: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """`heads`, `units`: by layer. `rules`: canonical name -> rule. `vocab`: ids, which `tokens` keys."""

    vocab: int
    stream: Stream
    heads: Mapping[int, Heads]
    units: Mapping[int, Units]
    rules: Mapping[str, Rule]
    tokens: Group = "permutation"

    def check(self, tensors: Mapping[str, object]) -> None:
        """Raises SymmetryError for a tensor without a rule, or a rule without its tensor."""
        check_names(self.rules, tensors)


def check_names(rules: Mapping[str, Rule], tensors: Mapping[str, object]) -> None:
    """Raises SymmetryError for a tensor without a rule, or a rule without its tensor."""
    for name in tensors:
        if name not in rules:
            raise SymmetryError(f"No symmetry is known for the tensor {name}; veil a model of a supported family.")
    for name in rules:
        if name not in tensors:
            raise SymmetryError(f"The tensor {name} is missing; veil the whole model.")
