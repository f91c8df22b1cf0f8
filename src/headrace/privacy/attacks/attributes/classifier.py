"""Attack by a classifier: embeddings of sentences, one multinomial logistic regression an attribute.

It learns from people whose profiles are known, and from the labels that say which comment tells what: a sentence of a
comment that tells the attribute has its author's value as label, any other sentence the label that it tells nothing.
Of a person it adds up the chances that each sentence gives each value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias
from zlib import crc32

import numpy as np

from headrace.privacy.attacks.attributes.people import Person
from headrace.privacy.statistics import log_softmax, with_ones
from headrace.spec.errors import HeadraceError

Embed: TypeAlias = Callable[[Sequence[str]], np.ndarray]
"""Texts to unit vectors: float [n, width]. `LLM.embed` of an encoder is one."""

PENALTY = 0.1
"""Half of it, times the sum of squared weights, is added to the sum of losses over all sentences."""
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


def fit(vectors: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weights float64 [width + 1, classes], the last row the intercepts.

    Of unit vectors float [n, width] and how often each was seen with each class, float [n, classes].
    Raises HeadraceError without SciPy, which is not part of the base install.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise HeadraceError("The classifier needs scipy; run `pip install 'headrace[privacy]'`.") from error
    table, often = with_ones(vectors), counts.sum(axis=1, keepdims=True)
    shape = table.shape[1], counts.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        likely = log_softmax(table @ weights)
        value = -float((counts * likely).sum()) + PENALTY / 2 * float(flat @ flat)
        slope = table.T @ (often * np.exp(likely) - counts) + PENALTY * weights
        return value, slope.ravel()

    found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x.reshape(shape)


def chances(weights: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Of each class for each vector: [n, classes]."""
    return np.exp(log_softmax(with_ones(vectors) @ weights))


class Trained:
    """One classifier an attribute, and one of the topics of comments where all of those trained on have one."""

    def __init__(self, train: Sequence[Person], values: Mapping[str, Sequence[str]], embed: Embed) -> None:
        self.embed, self.values = embed, values
        self._weights = {name: self._fitted(train, name) for name in values}
        comments = [comment for person in train for comment in person.comments]
        self._topics = sorted({comment.topic for comment in comments})
        self._of_topics: np.ndarray | None = None
        if all(self._topics):
            labels = [self._topics.index(comment.topic) for comment in comments]
            self._of_topics = fit(embed([comment.text for comment in comments]), np.eye(len(self._topics))[labels])

    def _fitted(self, train: Sequence[Person], name: str) -> np.ndarray:
        """The last class is that nothing is told. Where no comment is labelled, each may tell its author's value."""
        labelled = any(name in comment.tells for person in train for comment in person.comments)
        nothing, seen = len(self.values[name]), dict[str, np.ndarray]()
        for person in train:
            value = self.values[name].index(person.value(name))
            for comment in person.comments:
                tells = name in comment.tells or not labelled
                for sentence in comment.sentences:
                    seen.setdefault(sentence, np.zeros(nothing + 1))[value if tells else nothing] += 1
        return fit(self.embed(list(seen)), np.array(list(seen.values())))

    def scores(self, people: Sequence[Person]) -> dict[str, np.ndarray]:
        """Of each value for each person, float [people, values] by attribute."""
        texts = [sentence for person in people for comment in person.comments for sentence in comment.sentences]
        owners = [k for k, person in enumerate(people) for comment in person.comments for _ in comment.sentences]
        vectors = self.embed(texts)
        found = {}
        for name, weights in self._weights.items():
            found[name] = np.zeros((len(people), len(self.values[name])))
            np.add.at(found[name], owners, chances(weights, vectors)[:, :-1])
        return found

    def topic_accuracy(self, people: Sequence[Person]) -> float | None:
        """How often the topic of a comment is known again; None where topics are unknown."""
        comments = [comment for person in people for comment in person.comments]
        if self._of_topics is None or not {comment.topic for comment in comments} <= set(self._topics):
            return None
        guesses = chances(self._of_topics, self.embed([comment.text for comment in comments])).argmax(axis=1)
        right = [self._topics[guess] == comment.topic for guess, comment in zip(guesses, comments, strict=True)]
        return float(np.mean(right))


def bag_of_words(texts: Sequence[str]) -> np.ndarray:
    """Roots of the counts of words, hashed into BUCKETS, as unit vectors: what words alone tell, without a model."""
    found = np.zeros((len(texts), BUCKETS), np.float32)
    for row, text in zip(found, texts, strict=True):
        for word in text.lower().split():
            row[crc32(word.strip(".,;:!?'\"").encode()) % BUCKETS] += 1
    found = np.sqrt(found)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
