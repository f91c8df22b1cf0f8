"""The token map: which veiled id stands for which of the source's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.privacy.veil.errors import SymmetryError
from headrace.privacy.veil.keyfile import ClientKey
from headrace.privacy.veil.keys import MODEL


class TokenMap:
    """`order` [vocab]: the source's id of each veiled id; a permutation of all ids, special ones too."""

    def __init__(self, order: np.ndarray) -> None:
        self._plain, self._veiled = order, np.argsort(order)
        if not np.array_equal(self._plain[self._veiled], np.arange(len(order))):
            raise SymmetryError("The token map is no permutation; take it from a key.")

    @classmethod
    def of(cls, key: ClientKey) -> TokenMap:
        return cls(key.master.stream(MODEL, "tokens").permutation(key.vocab))

    def veiled(self, ids: Sequence[int]) -> list[int]:
        """What to send. Raises IndexError for an id outside the vocabulary."""
        return _mapped(self._veiled, ids)

    def plain(self, ids: Sequence[int]) -> list[int]:
        """What was meant. Raises IndexError as `veiled` does."""
        return _mapped(self._plain, ids)

    def veiled_specials(self, specials: Mapping[str, int | list[int]]) -> dict[str, int | list[int]]:
        """Settings such as eos_token_id, one id or several, with their ids moved."""
        moved = {name: self.veiled([ids] if isinstance(ids, int) else ids) for name, ids in specials.items()}
        return {name: ids[0] if isinstance(specials[name], int) else ids for name, ids in moved.items()}


def _mapped(table: np.ndarray, ids: Sequence[int]) -> list[int]:
    if not len(ids):
        return []
    index = np.asarray(ids, np.int64)
    if index.min() < 0:
        raise IndexError(f"{index.min()} is no token id")
    return table[index].tolist()
