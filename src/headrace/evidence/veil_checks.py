"""How a veiled model is held against the plain one: answers, logits, speed, and what its folder gives away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from headrace.engine.surface import Surface
from headrace.privacy.attacks.align import align
from headrace.privacy.attacks.artefact import embedding, head
from headrace.privacy.attacks.recovery import Clock, Recovery, score_map
from headrace.privacy.veil.tokens import TokenMap
from headrace.spec.batch import Batch, Row
from headrace.spec.executor import Executor
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.sampling import Sampling, Stop

MARGIN = 1e-3
"""Where the two likeliest logits are nearer than this, rounding may choose between them."""
GREEDY = Sampling(temperature=0)
Name = TypeVar("Name", bound=str)
Paced: TypeAlias = Mapping[Name, tuple[Surface, Sequence[int]]]
"""Engines, each with the prompt by which its speed is measured."""


class GreedyAnswer(NamedTuple):
    """Ids of a prompt and of its greedy answer, and the answer's text where there is a tokenizer."""

    prompt: list[int]
    ids: list[int]
    text: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One prompt: `at` is the place of the first token that differs, `margin` the plain model's top-2 margin there.

    `apart`: largest difference of a logit over the plain answer. `same_text`: whether it is, letter for letter.
    """

    tokens: int
    same_text: bool
    apart: float
    at: int | None = None
    margin: float | None = None

    @property
    def wrong(self) -> bool:
        """Other tokens than rounding can explain, or another text of the same tokens."""
        return not self.same_text if self.margin is None else self.margin > MARGIN


def ask(engine: Surface, prompts: Sequence[Any], new: int) -> list[GreedyAnswer]:
    """All prompts at the same time, `new` tokens each."""
    handles = [engine.open_now(prompt) for prompt in prompts]
    asked = [list(handle.tokens) for handle in handles]
    extensions = [handle.extend(Stop(tokens=new, ignore_eos=True), GREEDY) for handle in handles]
    steps = [extension.result() for extension in extensions]
    for handle in handles:
        handle.drop()
    return [GreedyAnswer(ids, step.token_ids, step.text) for ids, step in zip(asked, steps, strict=True)]


def ask_by_ids(engine: Surface, tokens: TokenMap, asked: Sequence[GreedyAnswer], new: int) -> list[GreedyAnswer]:
    """The same prompts, mapped by hand: what a client with this token map would read, without its text."""
    found = ask(engine, [tokens.veiled(each.prompt) for each in asked], new)
    return [GreedyAnswer(each.prompt, tokens.plain(got.ids), "") for each, got in zip(asked, found, strict=True)]


def logits_of(executor: Executor, ids: Sequence[int], start: int = 0) -> np.ndarray:
    """What is predicted after each token from `start` on, float32 [tokens, vocab]; valid until the next call."""
    table = tuple(range(-(-len(ids) // PAGE_TOKENS)))
    row = Row(0, "prefill", 0, tuple(ids), (table,) * len(executor.spec.state_groups()), logits_from=start)
    return executor.submit(Batch(1, (row,))).result().logits


def next_logits(executor: Executor, answered: GreedyAnswer) -> np.ndarray:
    """Of each token of the answer before it was drawn, float32 [tokens, vocab]; a copy."""
    ids = [*answered.prompt, *answered.ids[:-1]]
    return logits_of(executor, ids, len(answered.prompt) - 1).copy()


def margins(logits: np.ndarray) -> np.ndarray:
    """The likeliest logit less the second, [tokens]."""
    second, first = np.partition(logits, -2, axis=-1)[:, -2:].T
    return first - second


def compare(plain: GreedyAnswer, found: GreedyAnswer, logits: np.ndarray, other: np.ndarray) -> Compared:
    """An answer and its logits [tokens, vocab] against the plain one's, both by the plain ids."""
    apart = float(np.abs(logits - other).max())
    for at, (mine, theirs) in enumerate(zip(plain.ids, found.ids, strict=True)):
        if mine != theirs:
            return Compared(len(plain.ids), False, apart, at, float(margins(logits[at : at + 1])[0]))
    return Compared(len(plain.ids), plain.text == found.text, apart)


def compare_all(
    plain: Sequence[GreedyAnswer], found: Sequence[GreedyAnswer], executors: tuple[Executor, Executor], tokens: TokenMap
) -> list[Compared]:
    """Every prompt; `executors` of the plain and of the veiled folder, which sees ids as `tokens` maps them."""
    order = tokens.veiled(range(executors[0].spec.vocab))
    rows = []
    for one, other in zip(plain, found, strict=True):
        moved = GreedyAnswer(tokens.veiled(one.prompt), tokens.veiled(one.ids), "")
        veiled = next_logits(executors[1], moved)[:, order]
        rows.append(compare(one, other, next_logits(executors[0], one), veiled))
    return rows


class Pace(NamedTuple):
    """Tokens a second: of the prompt until the first token came, and of the others after it."""

    prefill: float
    decode: float


def pace(engine: Surface, prompt: Sequence[int], tokens: int) -> Pace:
    with engine.open_now(list(prompt)) as handle:
        step = handle.extend(Stop(tokens=tokens, ignore_eos=True), GREEDY).result()
    rest = step.seconds - step.first_token_seconds
    return Pace(len(prompt) / step.first_token_seconds, (len(step.token_ids) - 1) / rest)


def one_round(engines: Paced[Name], number: int, tokens: int) -> dict[Name, Pace]:
    """Of every engine with its prompt, one after the other; the round's number turns their order."""
    names = list(engines)
    start = number % len(names)
    return {name: pace(*engines[name], tokens) for name in names[start:] + names[:start]}


def decode_rates(engines: Paced[Name], rounds: int, tokens: int) -> dict[Name, list[float]]:
    """Tokens a second after the first, of each engine in each round; one more round before warms them all."""
    one_round(engines, 0, tokens)
    found = [one_round(engines, number, tokens) for number in range(rounds)]
    return {name: [each[name].decode for each in found] for name in engines}


def attack(public: Path, deployed: Path, tokens: TokenMap, by_norms: bool = True) -> Recovery:
    """The token map of a veiled folder from it and the public model alone (`tokens` only scores what was found).

    It starts from the norms of embedding and head rows and their inner products, or from the tables' moments, and
    goes on by the Gram matrix, whose rotation is solved for: `attacks.align`.
    """
    known, seen = embedding(public), embedding(deployed)
    clock, heads = Clock(), None
    if by_norms:
        heads = (head(public), head(deployed))
    found = align(known, seen, heads)
    truth = np.array(tokens.plain(range(len(known))))
    details = {"matched": list(found.matched)}
    return score_map("align", found.token_map, truth, clock.cost(known, seen), details=details)
