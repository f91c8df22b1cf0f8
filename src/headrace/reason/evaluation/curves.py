"""What k of the stored samples of a question would give: coverage, vote, best by score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from headrace.reason.evaluation.pooled import Question
from headrace.reason.intervals import bootstrap
from headrace.reason.statistics import auc, best_at_k, maj_at_k, pass_at_k


def curves(questions: Sequence[Question], scored: bool) -> list[dict[str, Any]]:
    """pass@k, maj@k and, with scores, best@k for k = 1, 2, 4, …, each the exact expectation over draws of k.

    `tokens`: of k attempts, on average. Intervals are 95 % bootstraps over whole questions.
    """
    most = min(len(question.samples) for question in questions)
    sizes = [1 << power for power in range(most.bit_length()) if 1 << power < most] + [most]
    measures: dict[str, Callable[[Question, int], float]] = {"pass": _coverage, "maj": vote_at_k}
    if scored:
        measures["best"] = _best
    tokens = fmean(fmean(sample.tokens for sample in question.samples) for question in questions)
    found = []
    for k in sizes:
        row: dict[str, Any] = {"k": k, "tokens": k * tokens}
        for name, measure in measures.items():
            values = [measure(question, k) for question in questions]
            row[name] = sum(values) / len(values)
            row[f"{name}_interval"] = list(bootstrap(values))
        found.append(row)
    return found


def _right(question: Question) -> list[bool]:
    return [sample.kind == "right" for sample in question.samples]


def _coverage(question: Question, k: int) -> float:
    right = _right(question)
    return pass_at_k(len(right), sum(right), k)


def vote_at_k(question: Question, k: int) -> float:
    """The chance that a vote among k of its attempts is right.

    A group of equal answers is right if its first one is; all right groups count as one.
    """
    right = _right(question)
    keys = [None if lead is None else "right" if right[lead] else lead for lead in question.leads]
    return maj_at_k(keys, "right", k)


def _best(question: Question, k: int) -> float:
    return best_at_k([question.score(place) for place in range(len(question.samples))], _right(question), k)


def scorer_quality(questions: Sequence[Question]) -> dict[str, Any] | None:
    """AUC of the scorer over all samples that have a score; None where all are right or all wrong."""
    found = [
        (scoring, sample)
        for question in questions
        for sample, scoring in zip(question.samples, question.scorings, strict=False)
        if scoring.score is not None
    ]
    right = [sample.kind == "right" for _, sample in found]
    if len(set(right)) < 2:
        return None
    scores = [scoring.score or 0.0 for scoring, _ in found]
    value, interval = auc(scores, right, [sample.item for _, sample in found])
    return {"auc": value, "interval": list(interval), "samples": len(found)}
