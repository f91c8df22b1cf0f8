"""What the claim of computation on shares measures: agreement, bounds, costs, views, and a model of real size."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random

import numpy as np

from headrace.evidence import stage
from headrace.model.catalogue import resolve
from headrace.model.loading import LoadedModel, ResidentStore, load_model
from headrace.privacy.mpc import approximations, price, transformer
from headrace.privacy.mpc.approximations import Inverse
from headrace.privacy.mpc.inference import SecretDecoder
from headrace.privacy.mpc.price import PROTOCOLS, Cost, Protocol
from headrace.privacy.mpc.session import Kind, Session, Setup, Spent
from headrace.privacy.mpc.transformer import Calm, Shape
from headrace.privacy.mpc.view import Finding, judge
from headrace.privacy.mpc.weights import Prepared, for_shares, plain_logits, plain_states, shape_of
from headrace.spec.ledger import Ledger
from headrace.spec.program import compile_program

FIXTURE = "lm-t-small"
EXACT = approximations.exact()
BLOCK_TOKENS = 16
MOST_MEMORY = 16 << 30
LEAST_ROUNDS: dict[Kind, float] = {"aby3": 0.9, "semi2k": 1.0}
"""The share of its formula's rounds that an operation takes at least; none takes more.

Both parties of Semi2k send in every round. ABY3's truncations and conversions send along a chain of parties, whose
order SPU draws anew each time: where two chains fit, who is done with the first sends for the second meanwhile.
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, its sizes at one length of prompt, and its weights for shares and for plain numbers."""

    loaded: LoadedModel
    shape: Shape

    @property
    def plain(self) -> Prepared:
        return Prepared(self.loaded, self.shape)


# -- agreement -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of logits on shares with logits in plain numbers, over all positions of the prompts."""

    positions: int
    error: float
    agreeing: int
    spent: Spent
    calm: list[Calm]


def trained(tokens: int, prompts: int, train: bool = False) -> tuple[Subject, list[list[int]], str]:
    """The smaller LM-T on lessons of its own kind; where it has not been trained, a random model or `train` it now."""
    from headrace.adapt.lesson import encode
    from headrace.reason.tasks.fixtures import fixture, fixture_recipe, lessons, ready

    if not (train or ready(FIXTURE)):
        loaded = random_model()
        random = np.random.default_rng(87)
        drawn = [random.integers(0, loaded.spec.vocab, tokens).tolist() for _ in range(prompts)]
        return Subject(loaded, shape_of(loaded.spec, tokens)), drawn, f"a random model, for {FIXTURE} is not trained"
    loaded, draw, rng = load_model(fixture(FIXTURE), Ledger()), lessons(fixture_recipe(FIXTURE).lessons)[0], Random(87)
    assert loaded.tokenizer is not None
    found = []
    for _ in range(prompts):
        row: list[int] = []
        while len(row) < tokens:
            row += [token for token, _ in encode(loaded.tokenizer, draw(rng))]
        found.append(row[:tokens])
    return Subject(loaded, shape_of(loaded.spec, tokens)), found, FIXTURE


def random_model() -> LoadedModel:
    spec = stage.tiny_spec()
    held = stage.RandomWeights(spec).lease(compile_program(spec).operations)
    return LoadedModel(spec, ResidentStore(held), None, "tiny", None, {}, 0)  # type: ignore[arg-type]


def compare_logits(session: Session, subject: Subject, prompts: Sequence[Sequence[int]]) -> Agreement:
    """Every prompt once through the parties that the session has started."""
    weights, error, agreeing = for_shares(subject.loaded, subject.shape), 0.0, 0
    decoder = SecretDecoder(session, weights, subject.shape)
    for prompt in prompts:
        ours = decoder.logits(prompt)
        plain = plain_logits(subject.plain, subject.shape, EXACT, prompt)
        error = max(error, float(np.abs(ours - plain).max()))
        agreeing += int((ours.argmax(-1) == plain.argmax(-1)).sum())
    return Agreement(len(prompts) * subject.shape.tokens, error, agreeing, decoder.spent, weights.calm)


# -- bounds ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest error of a function on shares over its range, and what it may be.

    `measure`: absolute, or relative beyond two steps of fixed point.
    """

    name: str
    low: float
    high: float
    error: float
    bound: float
    measure: str = "absolute"

    @property
    def holds(self) -> bool:
        return self.error <= self.bound

    def __str__(self) -> str:
        over = f"over {self.low:g} to {self.high:g}"
        return f"{self.name} {over} {self.error:.1e} {self.measure} (bound {self.bound:.1e})"


def check_bounds(session: Session, points: int) -> list[Bound]:
    """Every approximated function on shares over its range: the whole of it, evenly, and its seams."""
    rounding = approximations.ROUNDING_BOUND
    wide, below = np.linspace(-30, 30, points), np.linspace(-40, 0, points)
    found = []
    for name, kind in approximations.GATES.items():
        error = np.abs(_on_shares(session, name, wide) - approximations.activation(name, wide))
        found.append(Bound(name, -30, 30, float(error.max()), kind.bound + rounding))
    error = np.abs(_on_shares(session, "exponential", below / approximations.EXP_SCALE) - np.exp(below))
    found.append(Bound("exponential", -40, 0, float(error.max()), approximations.EXP_BOUND + rounding))
    for name, inverse, power in (("reciprocal", approximations.RECIPROCAL, -1), ("rsqrt", approximations.RSQRT, -0.5)):
        x = np.geomspace(inverse.low, inverse.high, points)
        found.append(inverse_bound(name, inverse, _on_shares(session, name, x), x**power))
    return found


def inverse_bound(name: str, inverse: Inverse, found: np.ndarray, wanted: np.ndarray) -> Bound:
    """Errors as shares of what is wanted: an absolute bound would let small inverses be anything."""
    beyond = np.maximum(np.abs(found - wanted) - approximations.INVERSE_ROUNDING, 0) / wanted
    measure = f"relative beyond {approximations.INVERSE_ROUNDING:.1e}"
    return Bound(name, inverse.low, inverse.high, float(beyond.max()), inverse.bound, measure)


def _on_shares(session: Session, name: str, x: np.ndarray) -> np.ndarray:
    session.share({"x": x})
    session.run({"kind": name}, ["x"], "y")
    return session.reveal("y")


# -- costs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Charged:
    """What an operation cost on SPU's links, and what its formula says."""

    name: str
    kind: Kind
    measured: Cost
    formula: Cost

    @property
    def equal(self) -> bool:
        """Messages and bytes to the last one, rounds but for those that fall away (`LEAST_ROUNDS`)."""
        sent = (self.measured.messages, self.measured.bytes) == (self.formula.messages, self.formula.bytes)
        return sent and LEAST_ROUNDS[self.kind] * self.formula.rounds <= self.measured.rounds <= self.formula.rounds


def cases(protocol: Protocol, n: int) -> dict[str, tuple[list[tuple[int, ...]], Cost]]:
    """Operation -> shapes of its inputs, and its formula."""
    one: list[tuple[int, ...]] = [(n,)]
    pair = one * 2
    return {
        "multiply": (pair, protocol.multiply(n)),
        "square": (one, protocol.multiply(n)),
        "scale": (one, protocol.scale(n)),
        "matmul": ([(n, 8), (8, 3)], protocol.matmul(n, 8, 3)),
        "compare": (pair, protocol.compare(n)),
        "choose": (pair, protocol.compare(n) + protocol.select(n)),
        "largest": ([(n, 8)], price.largest(protocol, n, 8)),
        "reciprocal": (one, price.reciprocal(protocol, n)),
        "rsqrt": (one, price.rsqrt(protocol, n)),
        "exponential": (one, price.exponential(protocol, n)),
        "silu": (one, price.gate(protocol, "silu", n)),
        "gelu": (one, price.gate(protocol, "gelu", n)),
    }


def check_costs(session: Session, kind: Kind, names: Sequence[str], n: int = 7) -> list[Charged]:
    """Operations in lockstep, which counts rounds."""
    rng, found = np.random.default_rng(7), []
    table = cases(PROTOCOLS[kind], n)
    for name in names:
        shapes, formula = table[name]
        inputs = [f"in{i}" for i in range(len(shapes))]
        session.share({key: rng.uniform(1, 2, shape) for key, shape in zip(inputs, shapes, strict=True)})
        spent = session.run({"kind": name}, inputs, "out")
        found.append(Charged(name, kind, Cost(spent.rounds, spent.messages, spent.bytes), formula))
    return found


def decoder_cost(kind: Kind, shape: Shape, agreement: Agreement) -> Charged:
    """A decoder's whole traffic; rounds are not counted, for its parties ran freely."""
    one, spent = price.total(price.forward(PROTOCOLS[kind], shape, agreement.calm).values()), agreement.spent
    formula = replace(one * (agreement.positions // shape.tokens), rounds=0)
    return Charged("decoder", kind, Cost(0, spent.messages, spent.bytes), formula)


# -- views -----------------------------------------------------------------------------------------


def check_views(session: Session, setup: Setup, tokens: int = 8) -> list[Finding]:
    """Every party's view of one block, for two inputs that have nothing in common."""
    loaded = random_model()
    shape = shape_of(loaded.spec, tokens)
    weights, seen = for_shares(loaded, shape), []
    loud = 3 * np.random.default_rng(1).standard_normal((tokens, shape.hidden))
    session.open(replace(setup, record=True))
    session.views()  # what parties say to one another before there is an input
    for state in (np.zeros_like(loud), loud):
        decoder = SecretDecoder(session, weights, shape)
        decoder.block(0, decoder.share_state(state))
        seen.append(session.views())
    return [finding for one, other in zip(*seen, strict=True) for finding in judge(one, other)]


# -- a model of real size --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sized:
    """SmolLM2 on shares: one block's error, and one whole token where memory allows, else as many blocks' cost."""

    error: float
    block_seconds: float
    token_seconds: float
    whole: bool
    agrees: bool
    peak: int
    spent: Spent


def real_size(session: Session, setup: Setup, prompt: str = "The capital of France is the city of") -> Sized:
    """One block at 16 tokens, then a token of the whole model unless it cannot fit. Raises ModelFileError."""
    loaded = load_model(resolve(stage.FULL_MODEL), Ledger())
    assert loaded.tokenizer is not None
    tokens = (loaded.tokenizer.encode(prompt) * BLOCK_TOKENS)[:BLOCK_TOKENS]
    subject = Subject(loaded, shape_of(loaded.spec, BLOCK_TOKENS))
    states = plain_states(subject.plain, subject.shape, EXACT, tokens)
    weights = for_shares(loaded, subject.shape)
    session.open(setup)
    decoder = SecretDecoder(session, weights, subject.shape, keep=False)
    decoder.block(0, decoder.share_state(states[0]))
    error, block_seconds = float(np.abs(session.reveal("h") - states[1]).max()), decoder.spent.seconds
    if peak_of_tables(subject.shape) > MOST_MEMORY:
        layers = subject.shape.layers
        spent = replace(decoder.spent, bytes=decoder.spent.bytes * layers)
        return Sized(error, block_seconds, block_seconds * layers, False, False, 0, spent)
    decoder = SecretDecoder(session, weights, subject.shape, keep=False)
    ours = decoder.logits(tokens, rows=1)
    plain = transformer.head(np, EXACT, subject.shape, states[-1][-1:], subject.plain.head())
    agrees = bool(ours.argmax() == plain.argmax())
    peak = decoder.spent.peak + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Sized(error, block_seconds, decoder.spent.seconds, True, agrees, peak, decoder.spent)


def peak_of_tables(shape: Shape) -> int:
    """Bytes at most: the table of tokens as three parties hold it, as it travels, and as it is made."""
    return shape.vocab * shape.hidden * (3 * 16 * 3 + 3 * 4)


def as_numbers(charged: Sequence[Charged]) -> dict[str, float | int | str | list[float]]:
    found: dict[str, float | int | str | list[float]] = {}
    for one in charged:
        for unit, value in asdict(one.measured).items():
            found[f"{one.kind} {one.name} {unit}"] = value
    return found
