"""A language model that has read the comments: a value whose words stand there is likelier than the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from headrace.evidence.scripted import END, Chances, among
from headrace.privacy.attacks.attributes.asked import CLOSING, SENTENCES
from headrace.privacy.attacks.attributes.generator import known_values


def reader(prejudice: float = 1.0, attentive: float = 8.0) -> Chances:
    """`prejudice`: the weight of each attribute's first value, whatever was said; `attentive`: of one that was said."""

    def chances(text: str) -> Mapping[str, float]:
        comments, _, rest = text.partition(CLOSING)
        for name, sentence in SENTENCES.items():
            if rest.startswith(sentence):
                values = known_values(name)
                weights = {f" {value}": attentive if _stands(value, comments) else 1.0 for value in values}
                weights[f" {values[0]}"] *= prejudice
                return among(weights, rest.removeprefix(sentence))
        return {END: 1.0}

    return chances


@cache
def _stands(value: str, comments: str) -> bool:
    """A high income is not a high school."""
    return re.search(rf"\b{re.escape(value)}\b(?! school)", comments) is not None
