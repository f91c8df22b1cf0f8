"""The attack as a metric: what comments tell of their authors, and what a defence takes away, at what loss."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from headrace.engine.llm import LLM
from headrace.engine.surface import Surface
from headrace.privacy.attacks.attributes import synthpai
from headrace.privacy.attacks.attributes.asked import asked, log_likelihood
from headrace.privacy.attacks.attributes.classifier import Embed, Remembered, Trained, bag_of_words
from headrace.privacy.attacks.attributes.defences import DEFENCES, defended
from headrace.privacy.attacks.attributes.found import Found, score
from headrace.privacy.attacks.attributes.generator import people as generate
from headrace.privacy.attacks.attributes.people import Person, values_of
from headrace.privacy.statistics import Estimate
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions

WORDS = "bag-of-words"
STEP_TOKENS = 512
READ = 40
"""Comments whose likelihood is measured: the first ones of those whom the language model is asked about."""


@dataclass(frozen=True, slots=True)
class Defended:
    """What is found behind a defence, how much less, and what the comments lost by it.

    `similarity`: mean cosine of a comment's vector to what it was. `topics`: how often its topic is known again, before
    and after. `log_likelihood`: nats a token under the language model, before and after.
    """

    found: tuple[Found, ...]
    taken: tuple[Estimate, ...]
    similarity: float
    topics: tuple[float, float] | None
    log_likelihood: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        attacks = {
            one.attack: {"recovery": one.to_json(), "taken": asdict(taken)}
            for one, taken in zip(self.found, self.taken, strict=True)
        }
        utility = {"similarity": self.similarity, "topics": self.topics, "log_likelihood": self.log_likelihood}
        return {"attacks": attacks, "utility": utility}


class Audit:
    """Attacks that share one training: a classifier over `embed`, and with an `engine` also its language model.

    The language model is put to the first `most` people alone: it reads every comment once more for each defence.
    """

    def __init__(
        self,
        train: Sequence[Person],
        embed: Embed,
        engine: Surface | None = None,
        most: int | None = None,
        name: str = "classifier",
    ) -> None:
        if not train:
            raise InvalidRequest("There is nobody to learn from; give people to train on.", "train")
        self.train, self.values, self.name = train, values_of(train), name
        self.trained = Trained(train, self.values, Remembered(embed))
        self.engine, self.most = engine, most
        self._likelihoods: dict[tuple[str, ...], float] = {}

    def attack(self, people: Sequence[Person]) -> tuple[Found, ...]:
        """The classifier's findings, then the language model's. Raises InvalidRequest without people."""
        if not people:
            raise InvalidRequest("There is nobody to attack; give at least one person.", "people")
        known = self.train, self.values
        found = [score(self.name, self.trained.scores(people), people, *known)]
        if self.engine is not None:
            some = people[: self.most]
            found.append(score(self.engine.model_name, asked(self.engine, some, self.values), some, *known))
        return tuple(found)

    def defence(self, name: str, people: Sequence[Person], plain: Sequence[Found]) -> Defended:
        """A defence of DEFENCES against what `attack` found about the same people."""
        after = defended(people, DEFENCES[name])
        found = self.attack(after)
        taken = tuple(one.less(other) for one, other in zip(plain, found, strict=True))
        tables = [self.trained.embed([text for person in side for text in person.texts]) for side in (people, after)]
        similarity = float(np.einsum("nd,nd->n", *tables, dtype=np.float64).mean())
        return Defended(found, taken, similarity, self._topics(people, after), self._read(people, after))

    def _topics(self, *sides: Sequence[Person]) -> tuple[float, float] | None:
        before, after = map(self.trained.topic_accuracy, sides)
        return None if before is None or after is None else (before, after)

    def _read(self, *sides: Sequence[Person]) -> tuple[float, float] | None:
        if self.engine is None:
            return None
        before, after = (self._likelihood(self.engine, side) for side in sides)
        return before, after

    def _likelihood(self, engine: Surface, people: Sequence[Person]) -> float:
        texts = tuple(text for person in people[: self.most] for text in person.texts)[:READ]
        if texts not in self._likelihoods:
            self._likelihoods[texts] = log_likelihood(engine, texts)
        return self._likelihoods[texts]


def run(
    data: Path | None = None,
    embedder: str = "minilm-l6",
    model: str | None = None,
    people: int = 60,
    training: int = 96,
    most: int | None = None,
    defences: Sequence[str] = tuple(DEFENCES),
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, Any]:
    """The whole audit as JSON: recovery with interval, chance and majority, what each defence takes, the cost.

    `data`: a JSON-lines file in SynthPAI's schema, split by author; else people are generated. `embedder`: an encoder,
    or "bag-of-words" for none. `model`: a language model to be asked as well, about the first `most` people.
    "recovery" is the most that any attack found on plain comments, a mean over people and attributes.

    Raises InvalidRequest for an unknown defence or too few people, BadLine, ModelFileError.
    """
    for name in defences:
        if name not in DEFENCES:
            raise InvalidRequest(f"There is no defence {name!r}; choose of {', '.join(DEFENCES)}.", "defences")
    start = time.process_time()
    train, tried = split(data, people, training, seed)
    options = EngineOptions(threads=threads, step_tokens=STEP_TOKENS)
    with ExitStack() as opened:
        embed: Embed = bag_of_words if embedder == WORDS else opened.enter_context(LLM(embedder, options)).embed
        engine = None if model is None else opened.enter_context(LLM(model, options)).engine
        audit = Audit(train, embed, engine, most, embedder)
        plain = audit.attack(tried)
        behind = {name: audit.defence(name, tried, plain).to_json() for name in defences}
    worst = max(plain, key=lambda found: found.overall.value)
    return {
        "attack": "attributes", "best": worst.attack, "recovery": worst.overall.value,
        "interval": [worst.overall.low, worst.overall.high], "chance": worst.overall.chance,
        "people": len(tried), "training": len(train), "comments": sum(len(person.comments) for person in tried),
        "attacks": {found.attack: found.to_json() for found in plain}, "defences": behind,
        "cost": {"seconds": time.process_time() - start, "profiles": len(train)},
    }  # fmt: skip


def split(data: Path | None, people: int, training: int, seed: int) -> tuple[tuple[Person, ...], tuple[Person, ...]]:
    """People to train on and people to attack, none of them on both sides.

    Of a file at most `people` are attacked, never more than half. Raises InvalidRequest for a file of one author.
    """
    if data is None:
        return generate(training, "train", seed), generate(people, "test", seed)
    found = list(synthpai.load(data))
    if len(found) < 2:
        raise InvalidRequest(f"{data} has comments of one author only; give a file of two or more.", "data")
    Random(seed).shuffle(found)
    count = min(people, len(found) // 2)
    return tuple(found[count : count + training]), tuple(found[:count])
