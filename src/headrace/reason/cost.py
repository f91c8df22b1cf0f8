"""What a token costs in operations of the model."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.spec.model import Layer, ModelSpec


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Floating-point operations: `fixed` a token for the products, `context` more for every position attended."""

    fixed: float
    context: float

    @classmethod
    def of(cls, spec: ModelSpec) -> TokenCost:
        products = sum(_products(spec, layer) for layer in spec.layers) + spec.hidden * spec.vocab
        attended = sum(2 * layer.attention.heads * layer.attention.head_dim for layer in spec.layers)
        return cls(2.0 * products, 2.0 * attended)

    def flops(self, start: int, count: int) -> float:
        """Of the tokens at positions start … start + count - 1; the one at p attends p + 1 positions."""
        return self.fixed * count + self.context * (count * start + count * (count + 1) / 2)

    def affordable(self, start: int, most: int, flops: float) -> int:
        """The largest count up to `most` whose operations stay within `flops`."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.flops(start, middle) <= flops else (low, middle - 1)
        return low


def _products(spec: ModelSpec, layer: Layer) -> int:
    """Weights that one token multiplies with in a layer; of experts, those that it is routed to."""
    att, mlp = layer.attention, layer.mlp
    attention = spec.hidden * att.head_dim * (2 * att.heads + 2 * att.kv_heads)
    matrices = 3 if mlp.gated else 2
    feed_forward = matrices * spec.hidden * mlp.width * max(mlp.top_k, 1)
    return attention + feed_forward + spec.hidden * mlp.experts
