"""Attack by a classifier: embeddings of comments, one multinomial logistic regression an attribute.

Each comment of a person has the person's value as its label, though most tell nothing of it; over many people those
labels cancel out. What the comments of one person say is added up as log-probabilities over the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from zlib import crc32

import numpy as np
from scipy.optimize import minimize

from headrace.privacy.attacks.attributes.people import Person

Embed: TypeAlias = Callable[[Sequence[str]], np.ndarray]
"""Texts to unit vectors: float [n, width]. `LLM.embed` of an encoder is one."""

PENALTY = 0.1
"""Of the sum of squared weights, against the sum of losses over all comments: vectors of length one need large ones."""
BUCKETS = 1024


class Remembered:
    """An Embed that reads no text twice."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            self._known.update(zip(fresh, self._embed(fresh), strict=True))
        return np.stack([self._known[text] for text in texts])


@dataclass(frozen=True, slots=True)
class Classifier:
    """`weights` float64 [width + 1, classes], the last row the intercepts; `prior` log shares [classes]."""

    weights: np.ndarray
    prior: np.ndarray

    def log_odds(self, vectors: np.ndarray) -> np.ndarray:
        """How much more likely each class is than without the vector, in nats: [n, classes]."""
        return _log_softmax(_with_ones(vectors) @ self.weights) - self.prior


def fit(vectors: np.ndarray, labels: np.ndarray, classes: int) -> Classifier:
    """Of unit vectors float [n, width] and labels int [n], each class of which occurs."""
    table, wanted = _with_ones(vectors), np.eye(classes)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(table.shape[1], classes)
        chances = _log_softmax(table @ weights)
        value = -float((wanted * chances).sum()) + PENALTY / 2 * float(flat @ flat)
        slope = table.T @ (np.exp(chances) - wanted) + PENALTY * weights
        return value, slope.ravel()

    found = minimize(loss, np.zeros(table.shape[1] * classes), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    counts = np.bincount(labels, minlength=classes)
    return Classifier(found.x.reshape(table.shape[1], classes), np.log(counts / counts.sum()))


def _with_ones(vectors: np.ndarray) -> np.ndarray:
    return np.hstack([vectors.astype(np.float64), np.ones((len(vectors), 1))])


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


class Trained:
    """One classifier an attribute, from people whose profiles are known, and one of topics where all have some."""

    def __init__(self, train: Sequence[Person], values: Mapping[str, Sequence[str]], embed: Embed) -> None:
        self.embed = embed
        vectors, owners = embedded(train, embed)
        self._fitted = {
            name: fit(vectors, np.array([choices.index(person.value(name)) for person in train])[owners], len(choices))
            for name, choices in values.items()
        }
        told = [comment.topic for person in train for comment in person.comments]
        self.topics = sorted(set(told))
        labels = np.array([self.topics.index(topic) for topic in told])
        self._topic = fit(vectors, labels, len(self.topics)) if all(self.topics) else None

    def scores(self, vectors: np.ndarray, owners: np.ndarray, people: int) -> dict[str, np.ndarray]:
        """From what `embedded` gave: a score of each value for each person, float [people, values] by attribute."""
        return {name: _summed(one.log_odds(vectors), owners, people) for name, one in self._fitted.items()}

    def topic_accuracy(self, people: Sequence[Person], vectors: np.ndarray) -> float | None:
        """How often the topic of a comment is known again; None where topics are unknown."""
        told = [comment.topic for person in people for comment in person.comments]
        if self._topic is None or not set(told) <= set(self.topics):
            return None
        guessed = (self._topic.log_odds(vectors) + self._topic.prior).argmax(axis=1)
        return float(np.mean([self.topics[guess] == topic for guess, topic in zip(guessed, told, strict=True)]))


def embedded(people: Sequence[Person], embed: Embed) -> tuple[np.ndarray, np.ndarray]:
    """All comments as vectors, float [comments, width], and whose each is, int [comments]."""
    owners = [number for number, person in enumerate(people) for _ in person.comments]
    return embed([text for person in people for text in person.texts]), np.array(owners)


def _summed(odds: np.ndarray, owners: np.ndarray, people: int) -> np.ndarray:
    found = np.zeros((people, odds.shape[1]))
    np.add.at(found, owners, odds)
    return found


def bag_of_words(texts: Sequence[str]) -> np.ndarray:
    """Roots of the counts of words, hashed into BUCKETS, as unit vectors: what words alone tell, without a model."""
    found = np.zeros((len(texts), BUCKETS), np.float32)
    for row, text in zip(found, texts, strict=True):
        for word in text.lower().split():
            row[crc32(word.strip(".,;:!?'\"").encode()) % BUCKETS] += 1
    found = np.sqrt(found)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
