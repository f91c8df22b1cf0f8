"""A plain torch module as a Graph and named arrays, and arrays back into the module.

The forward is followed by torch.fx, once; what is read is the module in evaluation mode.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from headrace.spec import graph as ops
from headrace.spec.errors import UnsupportedModel
from headrace.spec.graph import Function, Graph, Operation, inputs

Kind: TypeAlias = Literal["image", "columns", "tokens", "row"]
"""[batch, channels, height, width], [batch, channels, places], [batch, places, channels], [batch, channels]."""
_COUNTER = "num_batches_tracked"
_VIEWS = (ops.Tokens, ops.Flatten, ops.Pick)


class Value(NamedTuple):
    """What a node of the trace holds."""

    buffer: str
    kind: Kind


def read_module(module: nn.Module, image: tuple[int, int, int]) -> tuple[Graph, dict[str, np.ndarray]]:
    """(what the module computes of an image of that shape, its tensors by name).

    The projections of a MultiheadAttention come apart: NAME.q.weight, NAME.k.weight and so on.
    Raises UnsupportedModel for a part that cannot be described, by its name.
    """
    try:
        trace = fx.Tracer().trace(module)
    except Exception as error:
        raise UnsupportedModel(
            f"The forward of {type(module).__name__} cannot be followed ({type(error).__name__}); write it without"
            " branches on its data."
        ) from error
    return _Reader(module, image).read(trace), read_arrays(module)


def read_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """The tensors of a module by name in float64, attention's projections apart, without batch norms' counters."""
    state = {name: np.array(tensor.detach().double().cpu()) for name, tensor in module.state_dict().items()}
    for joined, parts in _projections(module):
        state |= zip(parts, np.split(state.pop(joined), 3), strict=True)
    return {name: values for name, values in state.items() if not name.endswith(_COUNTER)}


def write_module(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Puts `read_arrays`' tensors, or veiled ones, into a module. Raises UnsupportedModel where names differ."""
    state = dict(arrays)
    for joined, parts in _projections(module):
        if all(part in state for part in parts):
            state[joined] = np.concatenate([state.pop(part) for part in parts])
    wanted = {name for name in module.state_dict() if not name.endswith(_COUNTER)}
    if odd := sorted(wanted ^ state.keys()):
        raise UnsupportedModel(f"{odd[0]} is not both in the module and in the arrays; give arrays of this module.")
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in state.items()}
    module.load_state_dict(tensors, strict=False)


def _projections(module: nn.Module) -> Iterable[tuple[str, list[str]]]:
    """(name of the joined tensor, names of q's, k's and v's)."""
    for name, part in module.named_modules():
        if type(part) is nn.MultiheadAttention and part.in_proj_weight is not None:
            kinds = ("weight",) if part.in_proj_bias is None else ("weight", "bias")
            for kind in kinds:
                yield f"{name}.in_proj_{kind}", [f"{name}.{one}.{kind}" for one in "qkv"]


class _Reader:
    """Turns a trace into operations, node by node."""

    def __init__(self, module: nn.Module, image: tuple[int, int, int]) -> None:
        self.module, self.image = module, image
        self.parts = dict(module.named_modules())
        self.operations: list[Operation] = []
        self.values: dict[fx.Node, Value] = {}
        self.parameters: dict[fx.Node, str] = {}
        self.sizes: set[fx.Node] = set()
        self.changed: dict[str, str] = {}
        """Buffers that are written over, by what."""

    def read(self, trace: fx.Graph) -> Graph:
        x = out = ""
        for node in trace.nodes:
            if node.op.startswith("call_"):
                self.visit(node)
            elif node.op == "get_attr":
                self.parameters[node] = node.target
            elif node.op == "output":
                out = self.value(node, node.args[0], "row").buffer
            elif x:
                self.refuse(node, "is a second input")
            else:
                x = node.name
                self.values[node] = Value(x, "image")
        self.check_changes()
        return Graph(tuple(self.operations), x, out, self.image)

    def visit(self, node: fx.Node) -> None:
        if node.op == "call_module":
            part = self.parts[node.target]
            known = _MODULES.get(type(part))
            if known is None:
                self.refuse(node, f"is a {type(part).__name__}, of which nothing is known")
            known(self, node, part)
            return
        calls = _FUNCTIONS if node.op == "call_function" else _METHODS
        call = calls.get(node.target)
        if call is None:
            self.refuse(node, f"calls {getattr(node.target, '__name__', node.target)}, of which nothing is known")
        call(self, node)

    def refuse(self, node: fx.Node, why: str) -> NoReturn:
        name = node.target if node.op == "call_module" else node.name
        raise UnsupportedModel(f"{name} {why}; replace it by a part that is known.")

    def check_changes(self) -> None:
        """What is written over must not be seen by anybody else, before or after, under this or another name."""
        writers = {operation.out: operation for operation in self.operations}
        for buffer, name in self.changed.items():
            readers = [operation for operation in self.operations if buffer in inputs(operation)]
            if len(readers) != 1 or isinstance(writers.get(buffer), _VIEWS):
                raise UnsupportedModel(f"{name} writes over what others read; make it work out of place.")

    # -- what nodes share ----------------------------------------------------------------------------

    def value(self, node: fx.Node, given: Any, *kinds: Kind) -> Value:
        found = self.values.get(given) if isinstance(given, fx.Node) else None
        if found is None:
            self.refuse(node, f"reads {given}, which is no activation")
        if kinds and found.kind not in kinds:
            self.refuse(node, f"reads {found.buffer} as {' or '.join(kinds)}, but it is {found.kind}")
        return found

    def add(self, node: fx.Node, operation: Operation, kind: Kind) -> None:
        self.operations.append(operation)
        self.values[node] = Value(operation.out, kind)

    def option(self, node: fx.Node, place: int, name: str, default: Any) -> Any:
        """An argument by place or by name."""
        return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)

    # -- modules -------------------------------------------------------------------------------------

    def same(self, node: fx.Node, part: nn.Module) -> None:
        self.values[node] = self.value(node, node.args[0])

    def convolve(self, node: fx.Node, part: nn.Conv2d) -> None:
        if part.groups != 1:
            self.refuse(node, f"has {part.groups} groups")
        x = self.value(node, node.args[0], "image")
        unpadded = part.padding in ((0, 0), "valid") and part.dilation == (1, 1)
        patch = unpadded and part.kernel_size == part.stride
        self.add(node, ops.Convolve(node.name, x.buffer, *_weights(node.target, part), patch), "image")

    def linear(self, node: fx.Node, part: nn.Linear) -> None:
        x = self.value(node, node.args[0], "tokens", "row")
        self.add(node, ops.Linear(node.name, x.buffer, *_weights(node.target, part)), x.kind)

    def batch_norm(self, node: fx.Node, part: nn.BatchNorm2d) -> None:
        if not (part.affine and part.track_running_stats):
            self.refuse(node, "has no gain or no statistics of its own")
        x = self.value(node, node.args[0], "image")
        gain, bias, mean, var = (f"{node.target}.{n}" for n in ("weight", "bias", "running_mean", "running_var"))
        self.add(node, ops.BatchNorm(node.name, x.buffer, gain, bias, mean, var, part.eps), "image")

    def layer_norm(self, node: fx.Node, part: nn.LayerNorm | nn.RMSNorm) -> None:
        if len(part.normalized_shape) != 1:
            self.refuse(node, "works on more than the channels")
        x = self.value(node, node.args[0], "tokens", "row")
        gain, bias = (f"{node.target}.{n}" if getattr(part, n, None) is not None else None for n in ("weight", "bias"))
        self.add(node, ops.LayerNorm(node.name, x.buffer, gain, bias, isinstance(part, nn.LayerNorm)), x.kind)

    def attention(self, node: fx.Node, part: nn.MultiheadAttention) -> None:
        given = {*node.args, *(node.kwargs[n] for n in ("query", "key", "value") if n in node.kwargs)}
        odd = node.kwargs.keys() - {"query", "key", "value", "need_weights", "average_attn_weights"}
        plain = part.batch_first and part.in_proj_weight is not None and part.bias_k is None and not part.add_zero_attn
        if len(given) != 1 or odd or not plain:
            self.refuse(node, "is no plain self-attention over a batch first")
        x, name = self.value(node, given.pop(), "tokens"), node.target
        for one in "qkv":
            bias = None if part.in_proj_bias is None else f"{name}.{one}.bias"
            self.operations.append(ops.Linear(f"{node.name}_{one}", x.buffer, f"{name}.{one}.weight", bias))
        q, k, v, made = (f"{node.name}_{one}" for one in "qkva")
        self.operations.append(ops.Attend(made, q, k, v, part.num_heads))
        self.add(node, ops.Linear(node.name, made, *_weights(f"{name}.out_proj", part.out_proj)), "tokens")

    def pool(self, node: fx.Node, part: nn.Module) -> None:
        x = self.value(node, node.args[0], "image")
        whole = isinstance(part, nn.AdaptiveAvgPool2d) and part.output_size in (1, (1, 1))
        if getattr(part, "return_indices", False):
            self.refuse(node, "gives places as well")
        kind: Literal["mean", "max"] = "max" if isinstance(part, nn.MaxPool2d) else "mean"
        self.add(node, ops.Pool(node.name, x.buffer, kind, whole), "image")

    # -- calls ---------------------------------------------------------------------------------------

    def apply(self, node: fx.Node, function: Function, part: nn.Module | None = None) -> None:
        x = self.value(node, node.args[0])
        if getattr(part, "inplace", False) or (function != "gelu" and self.option(node, 1, "inplace", False)):
            self.changed[x.buffer] = node.name
        self.add(node, ops.Apply(node.name, x.buffer, function), x.kind)

    def sum(self, node: fx.Node) -> None:
        if len(node.args) != 2 or node.kwargs:
            self.refuse(node, "is no sum of two")
        one, other = node.args
        x = self.value(node, one)
        if node.target is operator.iadd:
            self.changed[x.buffer] = node.name
        if other in self.parameters and x.kind == "tokens":
            self.add(node, ops.Offset(node.name, x.buffer, self.parameters[other]), "tokens")
            return
        y = self.value(node, other)
        if x.kind != y.kind:
            self.refuse(node, f"adds {x.kind} and {y.kind}")
        self.add(node, ops.Add(node.name, x.buffer, y.buffer), x.kind)

    def flatten(self, node: fx.Node, part: nn.Flatten | None = None) -> None:
        start, end = self.option(node, 1, "start_dim", 0), self.option(node, 2, "end_dim", -1)
        if part is not None:
            start, end = part.start_dim, part.end_dim
        if end != -1 or start not in (1, 2):
            self.refuse(node, "flattens other axes than the places of an image")
        x = self.value(node, node.args[0], "image", "row")
        if x.kind == "row":
            self.values[node] = x
        elif start == 1:
            self.add(node, ops.Flatten(node.name, x.buffer), "row")
        else:
            self.add(node, ops.Tokens(node.name, x.buffer), "columns")

    def transpose(self, node: fx.Node) -> None:
        x = self.value(node, node.args[0], "columns")
        if sorted(node.args[1:]) not in ([1, 2], [-1, 1], [-2, -1]) or node.kwargs:
            self.refuse(node, "swaps other axes than channels and places")
        self.values[node] = Value(x.buffer, "tokens")

    def mean(self, node: fx.Node) -> None:
        x = self.value(node, node.args[0], "image", "tokens")
        asked = self.option(node, 1, "dim", ())
        dims = sorted([asked] if isinstance(asked, int) else asked or ())
        wanted = ([[1], [-2]], [[2, 3], [-2, -1]])[x.kind == "image"]
        if dims not in wanted or self.option(node, 2, "keepdim", False):
            self.refuse(node, "is no mean over all places")
        self.add(node, ops.Pool(node.name, x.buffer, "mean", True), "row")

    def join(self, node: fx.Node) -> None:
        parts = list(node.args[0])
        if self.option(node, 1, "dim", 0) not in (1, -2) or len(parts) != 2 or parts[0] not in self.parameters:
            self.refuse(node, "joins anything but a parameter before the tokens")
        x = self.value(node, parts[1], "tokens")
        self.add(node, ops.Prepend(node.name, x.buffer, self.parameters[parts[0]]), "tokens")

    def expand(self, node: fx.Node) -> None:
        if node.args[0] not in self.parameters or any(size != -1 for size in node.args[2:]):
            self.refuse(node, "repeats anything but a parameter over the batch")
        self.parameters[node] = self.parameters[node.args[0]]

    def size(self, node: fx.Node) -> None:
        if node.target is getattr and node.args[1] != "shape":
            self.refuse(node, f"reads {node.args[1]}")
        self.sizes.add(node)

    def item(self, node: fx.Node) -> None:
        source, index = node.args
        if source in self.sizes:
            self.sizes.add(node)
        elif source.op == "call_module" and isinstance(self.parts[source.target], nn.MultiheadAttention) and index == 0:
            self.values[node] = self.value(node, source)
        elif isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None) and _is_place(index[1]):
            x = self.value(node, source, "tokens")
            self.add(node, ops.Pick(node.name, x.buffer, index[1]), "row")
        else:
            self.refuse(node, f"takes {index}, which is no place")


def _is_place(index: Any) -> bool:
    return isinstance(index, int) and index >= 0


def _weights(name: str, part: Any) -> tuple[str, str | None]:
    return f"{name}.weight", None if part.bias is None else f"{name}.bias"


def _applied(function: Function) -> Callable[..., None]:
    def visit(reader: _Reader, node: fx.Node, part: nn.Module | None = None) -> None:
        reader.apply(node, function, part)

    return visit


_MODULES: dict[type, Callable[..., None]] = {
    nn.Conv2d: _Reader.convolve, nn.Linear: _Reader.linear, nn.BatchNorm2d: _Reader.batch_norm,
    nn.LayerNorm: _Reader.layer_norm, nn.RMSNorm: _Reader.layer_norm, nn.MultiheadAttention: _Reader.attention,
    nn.MaxPool2d: _Reader.pool, nn.AvgPool2d: _Reader.pool, nn.AdaptiveAvgPool2d: _Reader.pool,
    nn.Flatten: _Reader.flatten, nn.Identity: _Reader.same, nn.Dropout: _Reader.same, nn.ReLU: _applied("relu"),
    nn.GELU: _applied("gelu"), nn.SiLU: _applied("silu"), nn.Tanh: _applied("tanh"),
}  # fmt: skip
_FUNCTIONS: dict[Any, Callable[..., None]] = {
    operator.add: _Reader.sum, operator.iadd: _Reader.sum, torch.add: _Reader.sum, operator.getitem: _Reader.item,
    getattr: _Reader.size, torch.flatten: _Reader.flatten, torch.mean: _Reader.mean, torch.cat: _Reader.join,
    functional.relu: _applied("relu"), torch.relu: _applied("relu"), functional.gelu: _applied("gelu"),
    functional.silu: _applied("silu"), torch.tanh: _applied("tanh"),
}  # fmt: skip
_METHODS: dict[Any, Callable[..., None]] = {
    "flatten": _Reader.flatten, "transpose": _Reader.transpose, "mean": _Reader.mean, "expand": _Reader.expand,
    "size": _Reader.size, "relu": _applied("relu"), "tanh": _applied("tanh"),
}  # fmt: skip
