"""The model as oracle: who holds veiled weights alone makes as much traffic of them as an attack on traffic wants.

A language model writes what it was trained on, so its own ids, drawn from no prompt at all, have the neighbours of
natural text: the bigram attack needs not one id of the victim's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from headrace.engine.surface import Surface
from headrace.privacy.attacks.bigram import TOP
from headrace.privacy.attacks.on_traffic import map_traffic
from headrace.privacy.attacks.recovery import Recovery
from headrace.privacy.attacks.traffic import check_ids
from headrace.spec.sampling import Sampling, Stop

LENGTH = 256
"""Tokens of a text, where the model's context allows as many."""
AT_ONCE = 32


def written(engine: Surface, tokens: int, start: int | None = None, seed: int = 0) -> np.ndarray:
    """`tokens` ids that the model draws at temperature 1, int [tokens], text after text; the first id of each is out.

    `start`: the id that texts begin with; None draws one for each.
    """
    length = max(1, min(LENGTH, engine.context - 1, tokens))
    count = -(-tokens // length)
    begun = np.random.default_rng(seed).integers(engine.spec.vocab, size=count).tolist()
    firsts = begun if start is None else [start] * count
    found = [
        text for at in range(0, count, AT_ONCE) for text in _texts(engine, firsts[at : at + AT_ONCE], length, seed + at)
    ]
    return np.concatenate([np.array(text, np.int64) for text in found])[:tokens]


def _texts(engine: Surface, firsts: Sequence[int], length: int, seed: int) -> Iterator[list[int]]:
    stop = Stop(tokens=length, ignore_eos=True)
    with ExitStack() as opened:
        texts = [opened.enter_context(engine.open_now([first], seed=seed + at)) for at, first in enumerate(firsts)]
        running = [text.extend(stop, Sampling(temperature=1.0)) for text in texts]
        yield from (extension.result().token_ids for extension in running)


def oracle(
    engine: Surface,
    known: np.ndarray,
    tokens: int,
    start: int | None = None,
    truth: np.ndarray | None = None,
    top: int = TOP,
    seed: int = 0,
) -> Recovery:
    """The bigram attack on ids that the veiled model itself writes; `known`: the attacker's own ids, int [n].

    Its cost has no token of the victim's; what it took to write the traffic stands in the details. Raises
    InvalidRequest, before anything is written, for fewer than two known ids or for ids out of range.
    """
    check_ids(known, engine.spec.vocab)
    began = time.process_time()
    wire = written(engine, tokens, start, seed)
    more = {"written_tokens": len(wire), "writing_seconds": time.process_time() - began}
    return map_traffic("oracle", wire, known, engine.spec.vocab, truth, top=top, needed=0, more=more)
