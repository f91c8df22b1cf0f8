"""A forward pass of one sequence, written plainly, to hold backends against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from backends.twins import RandomStore
from headrace.spec.model import Layer, ModelSpec, Norm, Rope
from headrace.spec.rope import rope_amplitude, rope_frequencies


def as_torch(store: RandomStore) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(tensor.numpy().copy()) for name, tensor in store.tensors.items()}


def oracle(spec: ModelSpec, w: Mapping[str, torch.Tensor], tokens: Sequence[int]) -> tuple[torch.Tensor, list]:
    """(logits [time, vocab] or the last hidden state, hidden states) of one sequence, written plainly."""
    at = torch.arange(len(tokens))
    x = w["embed.weight"][torch.tensor(tokens)] * spec.embed_scale
    x = x + w["embed.positions"][at] if spec.learned_positions else x
    x = x + w["embed.types"][0] if spec.token_types else x
    x = _norm(x, w, "embed.norm", spec.embed_norm) if spec.embed_norm else x
    states = [x]
    for index, layer in enumerate(spec.layers):
        for name, block in (("attn", _attention), ("mlp", _mlp)):
            base = f"layers.{index}.{name}"
            h = _norm(x, w, f"{base}_norm", layer.norm) if layer.norms in ("before", "both") else x
            o = block(layer, h, w, base)
            o = _norm(o, w, f"{base}_post_norm", layer.norm) if layer.norms in ("after", "both") else o
            x = x + o
            x = _norm(x, w, f"{base}_post_norm", layer.norm) if layer.norms == "on_residual" else x
        states.append(x)
    x = states[-1] = _norm(x, w, "norm", spec.final_norm) if spec.final_norm else x
    if not spec.causal:
        return x, states
    logits = x @ w["embed.weight" if spec.tied else "head.weight"].T
    logits = (logits + w["head.bias"] if spec.head_bias else logits) * spec.logit_scale
    cap = spec.logit_softcap
    return (cap * torch.tanh(logits / cap) if cap else logits), states


def _norm(x: torch.Tensor, w: Mapping[str, torch.Tensor], name: str, norm: Norm) -> torch.Tensor:
    gain, bias = w[f"{name}.weight"], w.get(f"{name}.bias", torch.zeros(()))
    if norm.kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + norm.eps) * gain + bias


def _linear(x: torch.Tensor, w: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def _attention(layer: Layer, x: torch.Tensor, w: Mapping[str, torch.Tensor], base: str) -> torch.Tensor:
    att, time = layer.attention, len(x)
    heads = {"q": att.heads, "k": att.kv_heads, "v": att.kv_heads}
    part = {name: _linear(x, w, f"{base}.{name}") for name in "qkv"}
    for name in "qk" if att.qk_norm != "none" else "":
        rows = part[name].view(time, heads[name], -1) if att.qk_norm == "head" else part[name]
        part[name] = _norm(rows, w, f"{base}.{name}_norm", Norm("rms", att.qk_norm_eps)).reshape(time, -1)
    q, k, v = (part[name].view(time, heads[name], att.head_dim) for name in "qkv")
    if att.rope:
        q, k = _turned(q, att.rope), _turned(k, att.rope)
    out = []
    for head in range(att.heads):
        shared = head * att.kv_heads // att.heads
        scores = q[:, head] @ k[:, shared].T * att.scale
        scores = att.softcap * torch.tanh(scores / att.softcap) if att.softcap else scores
        hidden = [
            [(att.causal and j > i) or (att.window is not None and i - j >= att.window) for j in range(time)]
            for i in range(time)
        ]
        scores = scores.masked_fill(torch.tensor(hidden), -torch.inf)
        out.append(torch.softmax(scores, -1) @ v[:, shared])
    return _linear(torch.cat(out, -1), w, f"{base}.o")


def _turned(x: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Pairs (i, i + dim / 2) as complex numbers, turned in double precision."""
    half = rope.dim // 2
    angles = torch.tensor([[p * f for f in rope_frequencies(rope, p + 1)] for p in range(len(x))], dtype=torch.float64)
    turn = torch.polar(torch.full_like(angles, rope_amplitude(rope)), angles)[:, None]
    turned = torch.complex(x[..., :half].double(), x[..., half : 2 * half].double()) * turn
    return torch.cat((turned.real.float(), turned.imag.float(), x[..., rope.dim :]), -1)


def _mlp(layer: Layer, x: torch.Tensor, w: Mapping[str, torch.Tensor], base: str) -> torch.Tensor:
    mlp = layer.mlp
    act = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu, "gelu_tanh": lambda t: F.gelu(t, approximate="tanh")}
    if not mlp.experts:
        up = _linear(x, w, f"{base}.up")
        m = act[mlp.activation](_linear(x, w, f"{base}.gate")) * up if mlp.gated else act[mlp.activation](up)
        return _linear(m, w, f"{base}.down")
    rows = []
    for row in x:
        odds = torch.softmax(w[f"{base}.router.weight"] @ row, -1)
        chosen = torch.topk(odds, mlp.top_k)
        total = chosen.values.sum() if mlp.renormalise else 1.0
        y = torch.zeros(len(row))
        for odd, expert in zip(chosen.values, chosen.indices.tolist(), strict=True):
            gate, up, down = (w[f"{base}.experts.{part}"][expert] for part in ("gate", "up", "down"))
            y = y + odd / total * (down @ (act[mlp.activation](gate @ row) * (up @ row)))
        rows.append(y)
    return torch.stack(rows)
