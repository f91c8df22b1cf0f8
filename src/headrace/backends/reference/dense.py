"""The same program over whole sequences with gradients: for training, and as an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import LongTensor, Tensor

from headrace.backends.reference.operations import Frame, experts, run_operation
from headrace.backends.reference.rotary import RotaryTables
from headrace.backends.reference.weights import DTYPES, PACKED, plan_weights
from headrace.spec.errors import ContextExceeded
from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import Attention, ModelSpec
from headrace.spec.program import Attend, Expert, Keep, compile_program


class DenseModel:
    """Differentiable forward pass. Parameters are copies of the store's weights, by canonical name."""

    def __init__(
        self, spec: ModelSpec, weights: WeightStore, dtype: str = "fp32", ledger: Ledger | None = None
    ) -> None:
        self.spec, self.program = spec, compile_program(spec)
        ledger, plan = ledger or Ledger(), plan_weights(weights, self.program.operations, DTYPES[dtype])
        if plan.nbytes:
            ledger.reserve("weights", "weights", plan.nbytes)
        decoding = ledger.reserve("weights", "decoding buffer", plan.passing)
        loaded = plan.load()
        ledger.release(decoding)
        self._parameters = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in loaded.items()}
        self._weights: dict[str, Any] = dict(self._parameters)
        self._tables = RotaryTables((), 0)
        self._length = 0

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return dict(self._parameters)

    def replace(self, name: str, matrix: Callable[[Tensor], Tensor]) -> None:
        """From now on `matrix`, x [tokens, in] -> [tokens, out], runs in place of the product with weight `name`."""
        self._weights[name + PACKED] = matrix

    def forward(self, tokens: LongTensor, lengths: LongTensor | None = None) -> Tensor:
        """tokens [batch, time] -> float32 logits [batch, time, vocab] of a decoder.

        `lengths` [batch]: tokens beyond them are padding that nothing attends to.
        Raises ContextExceeded for a time beyond the context.
        """
        frame, _ = self._run(tokens, lengths, ())
        return frame.buffers["logits"].view(*tokens.shape, -1)

    __call__ = forward

    def hidden(self, tokens: LongTensor, states: tuple[int, ...], lengths: LongTensor | None = None) -> list[Tensor]:
        """Hidden states [batch, time, hidden]; 0 is the embedding, the last stands after the final norm."""
        _, seen = self._run(tokens, lengths, tuple(state % (len(self.spec.layers) + 1) for state in states))
        return [x.view(*tokens.shape, -1) for x in seen]

    def _run(self, tokens: Tensor, lengths: Tensor | None, states: tuple[int, ...]) -> tuple[Frame, list[Tensor]]:
        batch, time = tokens.shape
        self._extend_tables(time)
        frame = Frame(tokens.reshape(-1), torch.arange(time).repeat(batch))
        wanted, seen = {self.program.hidden_after[state] for state in states}, {}
        for index, op in enumerate(self.program.operations):
            if isinstance(op, Attend):
                frame.buffers[op.out] = self._attend(op, frame.buffers, batch, lengths)
            elif isinstance(op, Expert):
                x, routes = frame.buffers[op.x], frame.buffers[op.routes]
                frame.buffers[op.out] = experts(op, x, routes, self._weights, None)
            elif not isinstance(op, Keep):
                run_operation(op, frame, self._weights, self._tables)
            if index + 1 in wanted:
                seen[index + 1] = frame.buffers["x"]
        return frame, [seen[self.program.hidden_after[state]] for state in states]

    def _extend_tables(self, time: int) -> None:
        if time > self.spec.context:
            raise ContextExceeded(
                f"{time} tokens are beyond the context of {self.spec.context}; give shorter sequences."
            )
        if time > self._length:
            self._length = min(self.spec.context, max(time, 2 * self._length))
            self._tables = RotaryTables(self.program.operations, self._length)

    def _attend(self, op: Attend, buffers: Mapping[str, Tensor], batch: int, lengths: Tensor | None) -> Tensor:
        att = op.attention
        q, k, v = (
            buffers[name].view(batch, -1, heads, att.head_dim).transpose(1, 2).float()
            for name, heads in ((op.q, att.heads), (op.k, att.kv_heads), (op.v, att.kv_heads))
        )
        k, v = (x.repeat_interleave(att.heads // att.kv_heads, dim=1) for x in (k, v))
        scores = q @ k.transpose(-1, -2) * att.scale
        if att.softcap is not None:
            scores = torch.tanh(scores / att.softcap) * att.softcap
        visible = _visible(att, q.shape[2], lengths)
        mixed = torch.softmax(scores.masked_fill(~visible, -torch.inf), dim=-1) @ v
        return mixed.transpose(1, 2).reshape(buffers[op.q].shape).to(buffers[op.q].dtype)


def _visible(att: Attention, time: int, lengths: Tensor | None) -> Tensor:
    """[batch or 1, 1, query, key] true where a query sees a key. A padded query sees key 0 at least."""
    at = torch.arange(time)
    apart = at[:, None] - at
    visible = apart >= 0 if att.causal else torch.ones(time, time, dtype=torch.bool)
    if att.window is not None:
        visible = visible & (apart < att.window)
    if lengths is None:
        return visible[None, None]
    inside = at < lengths[:, None]
    return (visible & inside[:, None, :] | (~inside[:, :, None] & (apart == 0)))[:, None]
