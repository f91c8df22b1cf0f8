"""Plain modules are read as what they compute, and refused by name where that is not known."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="headrace[torch] is not installed")
from torch import nn  # noqa: E402

from headrace.adapt.modules import read_arrays, read_module, write_module  # noqa: E402
from headrace.spec.errors import UnsupportedModel  # noqa: E402
from headrace.spec.graph import Add, Apply, Attend, Convolve, Linear, Pool, inputs  # noqa: E402


class Over(nn.Module):
    """Adds what a relu that works in place has written over."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 2, 3), nn.ReLU(inplace)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return (x + self.act(x)).mean((2, 3))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Mixed(nn.Module):
    def __init__(self, **how: object) -> None:
        super().__init__()
        self.patch, self.attention = nn.Conv2d(1, 4, 2, 2), nn.MultiheadAttention(4, 2, **{"batch_first": True, **how})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.attention(x, x, x)[0].mean(1)


def test_a_module_is_read_in_its_order() -> None:
    graph, arrays = read_module(Over(False), (1, 6, 6))
    assert [type(operation) for operation in graph.operations] == [Convolve, Apply, Add, Pool]
    assert inputs(graph.operations[2]) == ("conv", "act") and graph.out == graph.operations[-1].out
    assert arrays.keys() == {"conv.weight", "conv.bias"} and graph.image == (1, 6, 6)
    graph, arrays = read_module(Mixed(), (1, 6, 6))
    assert [type(one) for one in graph.operations[2:]] == [Linear, Linear, Linear, Attend, Linear, Pool]
    assert arrays["attention.q.weight"].shape == (4, 4) and "attention.in_proj_weight" not in arrays


def test_arrays_go_back_where_they_came_from() -> None:
    module = nn.ModuleDict({"one": Mixed(), "norm": nn.BatchNorm2d(3)})
    arrays = read_arrays(module)
    moved = {name: values + 1 for name, values in arrays.items()}
    write_module(module, moved)
    assert all(np.allclose(values, moved[name]) for name, values in read_arrays(module).items())
    assert not np.allclose(arrays["norm.weight"], moved["norm.weight"])
    for wrong in ({**arrays, "more": np.ones(2)}, {name: arrays[name] for name in list(arrays)[1:]}):
        with pytest.raises(UnsupportedModel, match="both in the module and in the arrays"):
            write_module(module, wrong)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softplus()), "1 is a Softplus"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), "0 has 2 groups"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False)), "1 has no gain"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm((4, 4))), "1 works on more than the channels"),
        (nn.Sequential(nn.Linear(6, 2)), "0 reads input_1 as tokens or row, but it is image"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), "output reads _0 as row, but it is image"),
        (Over(True), "act writes over what others read"),
        (Branching(), "The forward of Branching cannot be followed"),
        (Mixed(add_zero_attn=True), "attention is no plain self-attention"),
        (Mixed(batch_first=False), "attention is no plain self-attention"),
    ],
)
def test_what_is_not_known_is_refused_by_name(module: nn.Module, name: str) -> None:
    with pytest.raises(UnsupportedModel, match=name):
        read_module(module, (1, 6, 6))


@pytest.mark.parametrize(
    ("forward", "name"),
    [
        (lambda x: torch.softmax(x.mean((2, 3)), 1), "softmax"),
        (lambda x: x.mean((2, 3)) + 1, "is no activation"),
        (lambda x: x.mean(1), "no mean over all places"),
        (lambda x: x.flatten(2).mean((1,)), "reads flatten as image or tokens, but it is columns"),
        (lambda x: x.permute(0, 2, 3, 1), "permute"),
        (lambda x: x.flatten(2).transpose(0, 1), "swaps other axes"),
        (lambda x: x.flatten(2).transpose(1, 2)[:, -1], "no place"),
    ],
)
def test_calls_that_are_not_known_are_refused_by_name(forward, name: str) -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return forward(x)

    with pytest.raises(UnsupportedModel, match=name):
        read_module(Plain(), (1, 6, 6))
