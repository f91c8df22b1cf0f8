"""Gaussian noise on the states that leave, as strong as a share of each state's own norm."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from headrace.spec.errors import HeadraceError, InvalidRequest

if TYPE_CHECKING:
    from headrace.privacy.veil.keys import Keystream


class Noise:
    """`ratio`: the noise's norm over the state's, on average. It is drawn anew for every state, by ChaCha20.

    A generator whose output can be foretold would let the server take the noise away, so the key is 32 random
    bytes; give one only to draw the same noise again. Raises HeadraceError without the extra [privacy].
    """

    def __init__(self, ratio: float, key: bytes | None = None) -> None:
        if not 0 <= ratio < np.inf:
            raise InvalidRequest(f"The noise is {ratio}; give a ratio to the state's norm of 0 or more.", "noise")
        self.ratio = ratio
        if ratio:
            self._stream = _keystream(key or secrets.token_bytes(32))

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """States float32 [n, hidden] with noise; at ratio 0 the very same."""
        if not self.ratio:
            return states
        norms = np.linalg.norm(states.astype(np.float64), axis=1, keepdims=True)
        drawn = self._stream.normals(states.size).reshape(states.shape)
        noisy: np.ndarray = (states + self.ratio * norms / np.sqrt(states.shape[1]) * drawn).astype(np.float32)
        return noisy


def _keystream(key: bytes) -> Keystream:
    try:
        from headrace.privacy.veil.keys import Keystream
    except ImportError:
        raise HeadraceError("Noise needs cryptography; run `pip install headrace[privacy]`.") from None
    return Keystream(key)
