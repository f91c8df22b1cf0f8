"""What scores an attempt: the model asked yes or no, a head on its hidden states, an exact checker with noise."""

from __future__ import annotations

from headrace.reason.scorers.judge import Judge
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Scorer


def scorer_named(name: str) -> Scorer:
    """`judge`. Raises InvalidRequest."""
    if name == "judge":
        return Judge()
    raise InvalidRequest(f"There is no scorer {name!r}; give judge.", "scorer")
