"""What ids on the wire say of themselves: how often each occurs and which follows which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from headrace.spec.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Traffic:
    """`counts` int [vocab]: occurrences. `follows`, `precedes` sparse float32 [vocab, vocab].

    follows[a, b] is how often b came right after a; precedes is its transpose. `tokens`: how many ids there were.
    """

    counts: np.ndarray
    follows: csr_array
    precedes: csr_array

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    @property
    def ranked(self) -> np.ndarray:
        """The ids that occur, the most frequent first; ties by id."""
        order = np.lexsort((np.arange(len(self.counts)), -self.counts))
        return order[: int((self.counts > 0).sum())]

    def log_shares(self, ids: np.ndarray) -> np.ndarray:
        """The logarithm of each id's share of all tokens; the ids must occur."""
        return np.log(self.counts[ids] / self.tokens)


def check_ids(ids: np.ndarray, vocab: int) -> None:
    """Raises InvalidRequest for fewer than two ids or for ids out of range."""
    if len(ids) < 2 or int(ids.max()) >= vocab or int(ids.min()) < 0:
        raise InvalidRequest(f"A bigram needs two ids below {vocab}; give a longer text of this vocabulary.", "ids")


def traffic(ids: np.ndarray, vocab: int) -> Traffic:
    """Counts a stream of ids, int [tokens]. Raises InvalidRequest as `check_ids` does."""
    check_ids(ids, vocab)
    ids = ids.astype(np.int64)
    pairs, times = np.unique(ids[:-1] * vocab + ids[1:], return_counts=True)
    table = csr_array((times.astype(np.float32), (pairs // vocab, pairs % vocab)), shape=(vocab, vocab))
    return Traffic(np.bincount(ids, minlength=vocab), table, table.T.tocsr())
