"""Extraction: the model goes on from the beginning of a document, and an attack picks among what it wrote.

Carlini et al., arXiv 2202.07646, and Pandora's White-Box, arXiv 2402.17012.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from headrace.privacy.attacks.recovery import share
from headrace.privacy.audit.likelihood import Document, Likelihood
from headrace.privacy.statistics import Estimate
from headrace.spec.sampling import Sampling, Stop

ENDING = 16
"""Tokens that the attacker is after, unless told otherwise."""
CANDIDATES = 8
"""Endings written for a document: one greedy, the others drawn at temperature 1."""


def extract(
    tuned: Likelihood, base: Likelihood | None, documents: Sequence[Document], candidates: int, seed: int, ending: int
) -> list[bool]:
    """Whether the ending picked for each document is its own, token for token.

    `ending`: its tokens, of a short document half of all. The attacker knows what stands before it and its length.
    An ending is picked by the lowest ratio of the tuned model's loss to its base's, without a base by the lowest loss.
    """
    found, size = list[bool](), max(tuned.engine.options.queue // candidates, 1)
    for start in range(0, len(documents), size):
        some = documents[start : start + size]
        for document, endings in zip(some, _write(tuned, some, candidates, seed + start, ending), strict=True):
            prefix, own = cut(document, ending)
            found.append(pick(tuned, base, prefix, endings) == own)
    return found


def extracted(found: Sequence[bool]) -> Estimate:
    """The share, with Wilson's interval. What luck finds is for a control to say."""
    rate = share(np.ones(len(found)), np.array(found), 0.0)
    return Estimate(rate.value, rate.low, rate.high)


def cut(document: Document, ending: int) -> tuple[Document, Document]:
    """What the attacker knows, and what it is after."""
    known = len(document) - min(ending, len(document) // 2)
    return document[:known], document[known:]


def pick(tuned: Likelihood, base: Likelihood | None, prefix: Document, endings: Sequence[Document]) -> Document:
    """The ending that looks most like a memory."""
    distinct = list(dict.fromkeys(endings))
    if len(distinct) == 1:
        return distinct[0]
    losses = np.array([-found.mean() for found in tuned.after(prefix, distinct)])
    if base is not None:
        losses /= [-found.mean() for found in base.after(prefix, distinct)]
    return distinct[int(np.argmin(losses))]


def _write(
    tuned: Likelihood, documents: Sequence[Document], candidates: int, seed: int, ending: int
) -> list[list[Document]]:
    """The candidates of each document; all of them run together."""
    greedy, drawn = Sampling(temperature=0), Sampling(temperature=1)
    with ExitStack() as opened:
        running = []
        for number, document in enumerate(documents):
            prefix, own = cut(document, ending)
            stop = Stop(tokens=len(own), ignore_eos=True)
            root = opened.enter_context(tuned.engine.open_now(prefix, adapter=tuned.adapter, seed=seed + number))
            kids = [opened.enter_context(kid) for kid in root.fork(candidates)]
            running.append([kid.extend(stop, drawn if place else greedy) for place, kid in enumerate(kids)])
        return [[tuple(one.result().token_ids) for one in of_document] for of_document in running]
