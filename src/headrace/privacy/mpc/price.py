"""What an operation on shares costs, from the protocols: rounds, messages and bytes of all parties together.

Replicated shares of three parties (ABY3: Mohassel and Rindal 2018, eprint 2018/403) and additive shares of two with
dealt triples (Semi2k: Cramer et al. 2018, eprint 2018/482). A ring element has 8 bytes, a boolean share those of its
bits rounded up to 1, 2, 4 or 8. Operations run one after another; what a protocol sends at once is one round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from headrace.privacy.mpc.approximations import BASE_DEGREE, FRACTION_BITS, GATES, SQUARINGS
from headrace.privacy.mpc.transformer import STILL, Calm, Shape

RING_BYTES, RING_BITS = 8, 64
PREFIX_LEVELS = 6
"""log2 of the ring's bits: levels of a parallel prefix circuit."""


@dataclass(frozen=True, slots=True)
class Cost:
    """All parties' messages and payload bytes, and rounds that wait for one another."""

    rounds: int = 0
    messages: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.rounds + other.rounds, self.messages + other.messages, self.bytes + other.bytes)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.rounds * times, self.messages * times, self.bytes * times)


FREE = Cost()


def total(costs: Iterable[Cost]) -> Cost:
    return sum(costs, FREE)


def share_bytes(bits: int) -> int:
    """Bytes that a boolean share of so many bits travels in."""
    return next(size for size in (1, 2, 4, 8) if bits <= 8 * size)


class Protocol(ABC):
    """The parts that a protocol brings; `n` counts elements. The operations of a transformer follow from them."""

    @abstractmethod
    def product(self, n: int) -> Cost:
        """Elementwise, in the ring."""

    @abstractmethod
    def matrix_product(self, m: int, k: int, n: int) -> Cost:
        """[m, k] by [k, n], in the ring."""

    @abstractmethod
    def truncate(self, n: int) -> Cost:
        """Drops the fraction bits that a product has too many (SIRNN's, Rathee et al. 2021, eprint 2021/459)."""

    @abstractmethod
    def both(self, n: int, bits: int) -> Cost:
        """AND of boolean shares."""

    @abstractmethod
    def gated(self, n: int) -> Cost:
        """A ring element times one shared bit."""

    @abstractmethod
    def to_bits(self, n: int) -> Cost:
        """Additive shares of numbers to boolean shares of their bits."""

    @abstractmethod
    def from_bits(self, n: int, bits: int) -> Cost:
        """And back."""

    @abstractmethod
    def sign(self, n: int) -> Cost:
        """The highest bit, by the carries alone."""

    @abstractmethod
    def share_public(self, n: int) -> Cost:
        """A public number as a share that looks like any other."""

    def adder(self, n: int) -> Cost:
        """Kogge and Stone's over all bits of the ring."""
        return self.both(n, RING_BITS) + self.both(2 * n, RING_BITS) * PREFIX_LEVELS

    def carry(self, n: int) -> Cost:
        """The last carry of an addition: half as many bits in every level."""
        halves = total(self.both(2 * n, RING_BITS >> level) for level in range(1, PREFIX_LEVELS + 1))
        return self.both(n, RING_BITS) + halves

    def prefix_or(self, n: int) -> Cost:
        """All bits below the highest one set; an AND is as wide as the operand that a shift made narrower."""
        return total(self.both(n, RING_BITS - (1 << level)) for level in range(PREFIX_LEVELS))

    def square(self, n: int) -> Cost:
        """In the ring, where SPU takes it for one: inside its own functions."""
        return self.product(n)

    # -- operations on fixed-point numbers ---------------------------------------------------------

    def multiply(self, n: int) -> Cost:
        return self.product(n) + self.truncate(n)

    def scale(self, n: int) -> Cost:
        """By a public number: nothing is sent but for the truncation."""
        return self.truncate(n)

    def matmul(self, m: int, k: int, n: int) -> Cost:
        return self.matrix_product(m, k, n) + self.truncate(m * n)

    def compare(self, n: int) -> Cost:
        return self.sign(n)

    def select(self, n: int) -> Cost:
        return self.gated(n)

    def combine(self, n: int) -> Cost:
        """A public row by the stacked terms."""
        return self.truncate(n)


class Aby3(Protocol):
    """Three parties, any two of which hold every share."""

    def rotate(self, n: int, size: int = RING_BYTES) -> Cost:
        """Each party sends its neighbour `n` elements."""
        return Cost(1, 3, 3 * size * n)

    def product(self, n: int) -> Cost:
        return self.rotate(n)

    def matrix_product(self, m: int, k: int, n: int) -> Cost:
        return self.rotate(m * n)

    def truncate(self, n: int) -> Cost:
        """The wrap bit is one private product in 32 bits (3 half elements), then two parties reshare (2n)."""
        return Cost(2, 5, 3 * RING_BYTES // 2 * n + 2 * RING_BYTES * n)

    def both(self, n: int, bits: int) -> Cost:
        return self.rotate(n, share_bytes(bits))

    def gated(self, n: int) -> Cost:
        """Two oblivious transfers among three at once, of four elements each."""
        return Cost(2, 8, 8 * RING_BYTES * n)

    def to_bits(self, n: int) -> Cost:
        return self.rotate(n) + self.adder(n)

    def from_bits(self, n: int, bits: int) -> Cost:
        if bits <= 8:
            return Cost(2, 4, RING_BYTES * n * (3 * bits + 1))
        reveal = Cost(1, 1, RING_BYTES * n)
        return self.rotate(n) + self.adder(n) + reveal + self.rotate(n)

    def sign(self, n: int) -> Cost:
        return self.rotate(n) + self.carry(n)

    def share_public(self, n: int) -> Cost:
        return self.rotate(n)


class Semi2k(Protocol):
    """Two parties and a dealer of triples, who is the first of them: a private computation only if it forgets them."""

    def opened(self, n: int, size: int = RING_BYTES) -> Cost:
        """Both send the other `n` masked elements."""
        return Cost(1, 2, 2 * size * n)

    def product(self, n: int) -> Cost:
        return self.opened(2 * n)

    def square(self, n: int) -> Cost:
        return self.opened(n)

    def matrix_product(self, m: int, k: int, n: int) -> Cost:
        return self.opened(m * k + k * n)

    def truncate(self, n: int) -> Cost:
        """The wrap bit is one private product in 32 bits."""
        return self.opened(n, RING_BYTES // 2)

    def both(self, n: int, bits: int) -> Cost:
        return self.opened(2 * n, share_bytes(bits))

    def gated(self, n: int) -> Cost:
        return self.opened(2 * n)

    def to_bits(self, n: int) -> Cost:
        return self.adder(n)

    def from_bits(self, n: int, bits: int) -> Cost:
        return self.opened(n, share_bytes(bits))

    def sign(self, n: int) -> Cost:
        return self.carry(n)

    def share_public(self, n: int) -> Cost:
        return FREE


PROTOCOLS: dict[str, Protocol] = {"aby3": Aby3(), "semi2k": Semi2k()}


# -- functions -------------------------------------------------------------------------------------


def largest(protocol: Protocol, rows: int, columns: int) -> Cost:
    """A tournament along the columns; SPU shares the least number there is beforehand."""
    cost, left_over = protocol.share_public(1), 0
    while columns > 1:
        half, odd = divmod(columns, 2)
        cost += protocol.compare(rows * half) + protocol.select(rows * half)
        columns, left_over = half, left_over + odd
    return cost + (protocol.compare(rows) + protocol.select(rows)) * left_over


def exponential(protocol: Protocol, n: int) -> Cost:
    products = protocol.multiply(n) * (BASE_DEGREE - 1 + SQUARINGS)
    return products + protocol.combine(n) + protocol.compare(n) + protocol.select(n)


def gate(protocol: Protocol, name: str, n: int) -> Cost:
    powers = protocol.multiply(n) * (GATES[name].degree - 1)
    choices = (protocol.compare(n) + protocol.select(n)) * 2
    return choices + powers + protocol.scale(n) * 2 + protocol.combine(n)


def reciprocal(protocol: Protocol, n: int) -> Cost:
    """Goldschmidt's (Catrina and Saxena 2010): absolute value, highest bit, two steps, sign."""
    p = protocol
    bits = 2 * FRACTION_BITS
    absolute = p.sign(n) + p.from_bits(n, 1) + p.product(n)
    factor = p.to_bits(n) + p.prefix_or(n) + p.from_bits(n, bits)
    steps = p.multiply(n) * 5 + p.square(n) + p.truncate(n)
    return absolute + factor + steps + p.product(n)


def rsqrt(protocol: Protocol, n: int) -> Cost:
    """Lu et al. 2020 (10.1145/3411501.3419427): highest bit, a polynomial of degree 4, a power of two."""
    p = protocol
    bits = 2 * FRACTION_BITS
    highest = p.to_bits(n) + p.prefix_or(n)
    guess = p.from_bits(n, bits) + p.multiply(n)
    guess += p.multiply(n) + p.multiply(2 * n) + p.truncate(n)
    power_of_two = p.from_bits(n, 1) + p.from_bits(n, FRACTION_BITS) + p.product(n)
    return highest + guess + power_of_two + p.multiply(n)


# -- a transformer ---------------------------------------------------------------------------------


def norm(protocol: Protocol, tokens: int, hidden: int, calm: Calm = STILL) -> Cost:
    """Squares, the root's inverse with a step of Newton's, and a product with every row."""
    n, (before, after) = tokens * hidden, calm
    calmed = (FREE if before == 1 else protocol.scale(n)) + (FREE if after == 1 else protocol.scale(tokens))
    step = protocol.multiply(tokens) * 3 + protocol.scale(tokens)
    return calmed + protocol.multiply(n) * 2 + rsqrt(protocol, tokens) + step


def softmax(protocol: Protocol, rows: int, columns: int) -> Cost:
    n = rows * columns
    weights = largest(protocol, rows, columns) + exponential(protocol, n)
    return weights + reciprocal(protocol, rows) + protocol.multiply(n)


def block(protocol: Protocol, shape: Shape) -> dict[str, Cost]:
    """By part of a decoder layer."""
    p, t, d = protocol, shape.tokens, shape.hidden
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    projections = p.matmul(t, d, q) + p.matmul(t, d, kv) * 2 + p.matmul(t, q, d)
    mixing = p.matmul(t, shape.head_dim, t) + p.matmul(t, t, shape.head_dim)
    wide = p.matmul(t, d, shape.width) * (2 if shape.gated else 1) + p.matmul(t, shape.width, d)
    gated = p.multiply(t * shape.width) if shape.gated else FREE
    return {
        "norms": norm(p, t, d, shape.calm[0]) + norm(p, t, d, shape.calm[1]),
        "projections": projections,
        "rotary positions": (p.scale(t * q) + p.scale(t * kv)) * 2,
        "scores and mixing": mixing * shape.heads,
        "softmax": softmax(p, shape.heads * t, t),
        "feed-forward matrices": wide,
        "activation": gate(p, shape.activation, t * shape.width) + gated,
        "start of sums": p.share_public(1),
    }


def forward(
    protocol: Protocol, shape: Shape, calm: Sequence[Calm] | None = None, rows: int | None = None
) -> dict[str, Cost]:
    """The whole decoder; logits for the last `rows` tokens, by default for all. `calm`: of every norm in order."""
    calm, rows = calm or [STILL] * (2 * shape.layers + 1), shape.tokens if rows is None else rows
    parts: dict[str, Cost] = {}
    for index in range(shape.layers):
        layer = replace(shape, calm=(calm[2 * index], calm[2 * index + 1]))
        for name, cost in block(protocol, layer).items():
            parts[name] = parts.get(name, FREE) + cost
    return parts | {
        "embedding": protocol.matmul(shape.tokens, shape.vocab, shape.hidden),
        "final norm": norm(protocol, rows, shape.hidden, calm[-1]) + protocol.share_public(1),
        "head": protocol.matmul(rows, shape.hidden, shape.vocab),
    }
