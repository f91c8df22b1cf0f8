"""Finds the largest exact symmetry of every buffer of a plain module, and from it the rule of each tensor.

Row vectors as in `planner`. Buffers whose channels must be keyed alike (the two sides of a sum, what goes through a
norm or an activation) share a frame, and every operation that sees a frame narrows its group:

    linear, convolution   nothing: any invertible matrix passes on either side
    relu, maximum         an order with positive factors        other activations     an order
    layer norm            orthogonal maps that keep the mean    rms norm              orthogonal maps
    q . k, v and o        any invertible matrix a head, and any order of heads
    the image             any invertible matrix on the values of a patch, where every reader cuts it into patches;
                          else nothing: it stays as it is
    patches               any order, where nothing looks at neighbours; the position table goes along
    classes               any order

A norm's gain is folded into the linear maps that read it, a batch norm into the convolution before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import singledispatchmethod
from types import MappingProxyType

from headrace.privacy.veil.errors import SymmetryError
from headrace.privacy.veil.rules import Group, Heads, Rule, Step, check_names
from headrace.spec import graph as ops
from headrace.spec.graph import Graph, Operation, inputs

PIXELS, PATCHES, CLASSES = "@pixels", "@patches", "@classes"
_BELOW: Mapping[Group, tuple[Group, ...]] = MappingProxyType(
    {
        "identity": (),
        "permutation": ("identity",),
        "scaled": ("permutation", "identity"),
        "orthogonal_one": ("permutation", "identity"),
        "orthogonal": ("orthogonal_one", "permutation", "identity"),
        "general": ("orthogonal", "scaled", "orthogonal_one", "permutation", "identity"),
    }
)
"""The groups that lie in each, the larger ones first. `scaled` has positive factors here."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What keys the channels of one or several buffers."""

    group: Group
    size: int


@dataclass(frozen=True, slots=True)
class Folded:
    """A batch norm and the weights before it that take it up."""

    norm: ops.BatchNorm
    weight: str
    bias: str | None


@dataclass(frozen=True, slots=True)
class ModulePlan:
    """`axes`: frame name -> Axis; a frame is called after its first buffer. `heads`: attention's buffer -> Heads.

    `image`: channels, height, width; `patch`: height and width of its keyed patches, None where it stays visible.
    """

    image: tuple[int, int, int]
    patch: tuple[int, int] | None
    axes: Mapping[str, Axis]
    heads: Mapping[str, Heads]
    folded: tuple[Folded, ...]
    rules: Mapping[str, Rule]

    def check(self, tensors: Mapping[str, object]) -> None:
        """Raises SymmetryError for a tensor without a rule, or a rule without its tensor."""
        check_names(self.rules, tensors)


def plan_module(
    graph: Graph, shapes: Mapping[str, tuple[int, ...]], asked: Mapping[str, Group] | None = None
) -> ModulePlan:
    """The largest exact veil of a module with tensors of these shapes, or the groups `asked` for by frame name.

    Raises SymmetryError for an operation nobody can transform, a tensor that is missing or used twice, and a group
    that does not hold.
    """
    return _Walk(graph, shapes).plan(dict(asked or {}))


def meet(one: Group, other: Group) -> Group:
    """The largest group that lies in both."""
    return next(group for group in (one, *_BELOW[one]) if group == other or group in _BELOW[other])


class _Walk:
    """One pass over a graph. `group` and `size` are of the first buffer of each frame."""

    def __init__(self, graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.graph, self.shapes = graph, shapes
        self.readers: defaultdict[str, list[Operation]] = defaultdict(list)
        for operation in graph.operations:
            for buffer in inputs(operation):
                self.readers[buffer].append(operation)
        self.writers = {operation.out: operation for operation in graph.operations}
        self.first: dict[str, str] = {}
        self.group: dict[str, Group] = {}
        self.size: dict[str, int] = {}
        self.names: dict[str, str] = {}
        """First buffers of frames that go by another name and are joined to no other."""
        self.gains: dict[str, str] = {}
        self.leading: dict[str, int] = {}
        """Places before the patches."""
        self.rules: dict[str, Rule] = {}
        self.heads: dict[str, Heads] = {}
        self.folded: list[Folded] = []
        self.patch, self.places = self._patches()
        self.in_order = self.patch is None
        """Whether something depends on which patches are neighbours."""

    def plan(self, asked: dict[str, Group]) -> ModulePlan:
        for operation in self.graph.operations:
            self.visit(operation)
            self.leading.setdefault(operation.out, self.leading.get(inputs(operation)[0], 0))
        self._narrow(self.graph.out, "permutation")
        self.names[self._first(self.graph.out)] = CLASSES
        axes = self._axes(asked)
        rules = {name: replace(rule, steps=self._named(rule.steps)) for name, rule in self.rules.items()}
        return ModulePlan(self.graph.image, self.patch, axes, self.heads, tuple(self.folded), rules)

    def _axes(self, asked: dict[str, Group]) -> dict[str, Axis]:
        largest = {self.names.get(first, first): Axis(self.group[first], self.size[first]) for first in self.group}
        axes = {name: axis for name, axis in largest.items() if name.rpartition(".")[0] not in self.heads}
        if not self.in_order:
            axes[PATCHES] = Axis("permutation", self.places)
        for name, group in asked.items():
            if name not in axes:
                raise SymmetryError(f"Nothing here is called {name!r}; ask for one of {', '.join(sorted(axes))}.")
            if group not in (most := axes[name].group, *_BELOW[most]):
                raise SymmetryError(
                    f"{name} cannot be keyed by {group!r}: the module would compute something else; {most!r} is the"
                    " most that holds there, so ask for that."
                )
            axes[name] = replace(axes[name], group=group)
        return axes

    def _named(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Steps with frames in the place of buffers, without those on patches that keep their order."""
        named = []
        for step in steps:
            if step.name.startswith(PATCHES):
                named += [] if self.in_order else [step]
            elif step.kind in ("push", "pull"):
                first = self._first(step.name)
                named.append(replace(step, name=self.names.get(first, first)))
            else:
                named.append(step)
        return tuple(named)

    def _patches(self) -> tuple[tuple[int, int] | None, int]:
        """Height and width of the patches into which every reader cuts the image, and how many there are."""
        channels, height, width = self.graph.image
        readers = self.readers[self.graph.x]
        kernels = {self._shape(op.weight)[2:] for op in readers if isinstance(op, ops.Convolve) and op.patch}
        cut = len(kernels) == 1 and all(isinstance(op, ops.Convolve) and op.patch for op in readers)
        tall, wide = kernels.pop() if cut else (0, 0)
        if not cut or height % tall or width % wide:
            self._new(self.graph.x, channels, "identity")
            return None, 0
        self._new(self.graph.x, channels * tall * wide)
        self.names[self.graph.x] = PIXELS
        return (tall, wide), (height // tall) * (width // wide)

    # -- operations ----------------------------------------------------------------------------------

    @singledispatchmethod
    def visit(self, op: Operation) -> None:
        """Frames, groups and rules that come with an operation: the method below that is for its type."""
        raise SymmetryError(f"No symmetry is known for {type(op).__name__}; veil another module.")

    @visit.register
    def product(self, op: ops.Linear | ops.Convolve) -> None:
        if isinstance(op, ops.Convolve) and op.x != self.graph.x:
            self.in_order = True
        self._new(op.out, self._shape(op.weight)[0])
        gain = self.gains.get(op.x)
        folded = [] if gain is None else [Step("times", 1, gain)]
        self._add(op.weight, *folded, Step("pull", 1, op.x), Step("push", 0, op.out))
        self._add(op.bias, Step("push", 0, op.out))

    @visit.register
    def batch_norm(self, op: ops.BatchNorm) -> None:
        before, others = self.writers.get(op.x), (op.gain, op.mean, op.variance)
        self._join(op.out, op.x)
        if isinstance(before, ops.Linear | ops.Convolve) and len(self.readers[op.x]) == 1 and op.x != self.graph.out:
            self.folded.append(Folded(op, before.weight, before.bias))
            steps: tuple[Step, ...] = ()
        else:
            self._narrow(op.x, "permutation")
            steps = (Step("push", 0, op.x),)
        for tensor in others:
            self._add(tensor, *steps)
        self._add(op.bias, Step("push", 0, op.x))

    @visit.register
    def layer_norm(self, op: ops.LayerNorm) -> None:
        self._join(op.out, op.x)
        self._narrow(op.x, "orthogonal_one" if op.centred else "orthogonal")
        push = Step("push", 0, op.out)
        if op.gain is None:
            self._add(op.bias, push)
        elif self._only_products_read(op.out):
            self.gains[op.out] = op.gain
            self._add(op.gain, Step("one"))
            self._add(op.bias, Step("over", 0, op.gain), push)
        else:
            self._narrow(op.x, "permutation")
            self._add(op.gain, push)
            self._add(op.bias, push)

    @visit.register
    def apply(self, op: ops.Apply) -> None:
        self._join(op.out, op.x)
        self._narrow(op.x, "scaled" if op.function == "relu" else "permutation")

    @visit.register
    def attend(self, op: ops.Attend) -> None:
        for part, buffer in zip("qkv", (op.q, op.k, op.v), strict=True):
            self._seal(buffer, f"{op.out}.{part}")
        width = self.size[self._first(op.v)]
        self._new(op.out, width)
        self.names[op.out] = f"{op.out}.a"
        self.heads[op.out] = Heads(op.heads, 1, width // op.heads, 0, "general", "general")

    @visit.register
    def add(self, op: ops.Add) -> None:
        self._join(op.out, op.x)
        self._join(op.y, op.x)

    @visit.register
    def offset(self, op: ops.Offset) -> None:
        leading, shape = self.leading.get(op.x, 0), self._shape(op.table)
        self._join(op.out, op.x)
        if len(shape) < 2 or shape[-2] != self.places + leading:
            self.in_order = True
        self._add(op.table, Step("push", -1, op.x), Step("push", -2, f"{PATCHES}+{leading}"))

    @visit.register
    def prepend(self, op: ops.Prepend) -> None:
        self._join(op.out, op.x)
        self.leading[op.out] = self.leading.get(op.x, 0) + 1
        self._add(op.token, Step("push", -1, op.x))

    @visit.register
    def tokens(self, op: ops.Tokens) -> None:
        self._join(op.out, op.x)

    @visit.register
    def flatten(self, op: ops.Flatten) -> None:
        self.in_order = True
        self._join(op.out, op.x)

    @visit.register
    def pool(self, op: ops.Pool) -> None:
        self._join(op.out, op.x)
        if op.kind == "max":
            self._narrow(op.x, "scaled")
        self.in_order |= not op.whole
        self._pass_gain(op)

    @visit.register
    def pick(self, op: ops.Pick) -> None:
        self._join(op.out, op.x)
        self.in_order |= op.place >= self.leading.get(op.x, 0)
        self._pass_gain(op)

    # -- what the operations share -------------------------------------------------------------------

    def _pass_gain(self, op: ops.Pool | ops.Pick) -> None:
        if op.x in self.gains:
            self.gains[op.out] = self.gains[op.x]

    def _only_products_read(self, buffer: str) -> bool:
        """Whether a gain on these channels can be folded into whatever reads them."""

        def folds(op: Operation) -> bool:
            passes = isinstance(op, ops.Pick) or (isinstance(op, ops.Pool) and op.kind == "mean")
            return isinstance(op, ops.Linear) or (passes and self._only_products_read(op.out))

        return bool(self.readers[buffer]) and buffer != self.graph.out and all(map(folds, self.readers[buffer]))

    def _shape(self, tensor: str) -> tuple[int, ...]:
        if tensor not in self.shapes:
            raise SymmetryError(f"The tensor {tensor} is missing; veil the whole model.")
        return self.shapes[tensor]

    def _new(self, buffer: str, size: int, group: Group = "general") -> None:
        if buffer in self.first:
            raise SymmetryError(f"The buffer {buffer} is written twice; veil a module that writes each once.")
        self.first[buffer], self.group[buffer], self.size[buffer] = buffer, group, size

    def _first(self, buffer: str) -> str:
        if buffer not in self.first:
            raise SymmetryError(f"The buffer {buffer} is read before it is written; veil a whole module.")
        while self.first[buffer] != buffer:
            buffer = self.first[buffer]
        return buffer

    def _join(self, buffer: str, other: str) -> None:
        """Both in one frame: a new buffer in that of the one it comes from, or two that have met in a sum."""
        if buffer not in self.first:
            self.first[buffer] = self._first(other)
            return
        kept, gone = sorted((self._first(buffer), self._first(other)), key=list(self.group).index)
        if gone == kept:
            return
        if {gone, kept} & self.names.keys() or self.size[gone] != self.size[kept]:
            raise SymmetryError(f"{buffer} + {other} joins two keyed bases; veil a module without that sum.")
        self.first[gone] = kept
        self._narrow(kept, self.group.pop(gone))
        del self.size[gone]

    def _narrow(self, buffer: str, group: Group) -> None:
        first = self._first(buffer)
        found = meet(self.group[first], group)
        if found != self.group[first] and first in self.names:
            raise SymmetryError(f"{buffer} is keyed as {self.names[first]}; veil a module that leaves it as it is.")
        self.group[first] = found

    def _seal(self, buffer: str, name: str) -> None:
        """The buffer's frame is the attention's from here on."""
        first = self._first(buffer)
        if (
            self.group[first] != "general"
            or first in self.names
            or not isinstance(self.writers.get(buffer), ops.Linear)
        ):
            raise SymmetryError(f"{buffer} does not come straight from a linear map; veil a module whose q, k, v do.")
        self.names[first] = name

    def _add(self, tensor: str | None, *steps: Step) -> None:
        if tensor is None:
            return
        if tensor in self.rules:
            raise SymmetryError(f"{tensor} is used twice; give each use a tensor of its own.")
        self.rules[tensor] = Rule(tensor, steps)
