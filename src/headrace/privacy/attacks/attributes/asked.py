"""Attack by asking a language model: how much likelier a value becomes behind the comments than without any.

Each value is scored as the continuation of a sentence on the author. What the model finds likely of anybody is taken
off: the difference is pointwise mutual information (Holtzman et al. 2021, arXiv 2104.08315).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from headrace.engine.surface import Surface
from headrace.privacy.attacks.attributes.people import Person

OPENING = "Comments that one author left in a forum:\n"
NOTHING = "- ...\n"
CLOSING = "\nWhat the comments tell of their author:\n"
SENTENCES = {
    "age": "The author's age is",
    "sex": "The author is",
    "city_country": "The author lives in",
    "birth_city_country": "The author was born in",
    "education": "The author's highest degree is a",
    "occupation": "The author works as a",
    "income_level": "The author's income is",
    "relationship_status": "The author's marital status is",
}
TOGETHER = 32


def asked(engine: Surface, people: Sequence[Person], values: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """A score of each value for each person in nats, float [people, values] by attribute.

    Raises ContextExceeded where somebody's comments are more than the model reads at once.
    """
    prior = _likelihoods(engine, NOTHING, values)
    rows = [_likelihoods(engine, _listed(person.texts), values) for person in people]
    return {name: np.array([row[name] for row in rows]) - prior[name] for name in values}


def _listed(texts: Sequence[str]) -> str:
    return "".join(f"- {text}\n" for text in texts)


def _likelihoods(engine: Surface, comments: str, values: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Log-probability of each value behind the comments and its sentence, float [values] by attribute."""
    with ExitStack() as opened:
        read = opened.enter_context(engine.open_now(OPENING + comments + CLOSING))
        answers = {}
        for name, choices in values.items():
            sentence = opened.enter_context(read.fork(aside=True)[0])
            sentence.append(SENTENCES[name])
            answers[name] = sentence.score([f" {choice}" for choice in choices])
        return {name: np.array([sum(piece) for piece in answer.result()]) for name, answer in answers.items()}


def log_likelihood(engine: Surface, texts: Sequence[str]) -> float:
    """Mean log-probability of a token of the texts, each read as the first comment, in nats."""
    found: list[float] = []
    with engine.open_now(OPENING + "-") as opening:
        for start in range(0, len(texts), TOGETHER):
            pieces = opening.score([f" {text}" for text in texts[start : start + TOGETHER]]).result()
            found += [value for piece in pieces for value in piece]
    return float(np.mean(found))
