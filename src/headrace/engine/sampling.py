"""Drawing one token from one row of logits, in numpy.

The draw is Gumbel-max (argmax of logit / temperature + noise) with counter-based noise: a token's noise
depends on (seed, path, position, token id) alone, so the same request draws the same tokens whoever
else is in the batch, and after any recomputation.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.spec.executor import Chooser
from headrace.spec.sampling import Sampling

_FIRST_CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log-probability under the model's own distribution; `top`: (token id, log-probability), best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class NoiseKey:
    """What keys a sequence's noise. `path`: fork indices and branch numbers from the root on."""

    seed: int
    path: tuple[int, ...]

    def words(self) -> tuple[int, int]:
        """The key of the generator: 128 bits of SHA-256 over seed and path."""
        path = struct.pack(f"<Q{len(self.path)}q", self.seed & (2**64 - 1), *self.path)
        first, second = struct.unpack("<2Q", hashlib.sha256(path).digest()[:16])
        return first, second


def noise_of(key: tuple[int, int], position: int, ids: np.ndarray, vocab: int) -> np.ndarray:
    """Gumbel noise of the tokens `ids` [n] at a position: [n] float64. Philox 4x64 (Salmon et al., SC 2011)."""
    generator = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=[0, position, 0, 0])
    return gumbel(generator.random_raw(vocab)[ids])


def gumbel(raw: np.ndarray) -> np.ndarray:
    """Gumbel values of random bits [n] uint64: finite, as 52 bits and a half never round to 0 or 1."""
    uniform = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(-np.log(uniform))


def draw(
    logits: np.ndarray,
    sampling: Sampling,
    noise: NoiseKey,
    tokens: Sequence[int],
    prompt: int,
    choose: Chooser | None = None,
) -> int:
    """The next token after `tokens`, of which the first `prompt` were given. `logits` [vocab] float32, not changed.

    `choose`: a backend's own form of the function of that name.
    """
    logits = adjust(logits, sampling, tokens, prompt)
    if sampling.temperature == 0 or sampling.top_k == 1:
        return int(logits.argmax())
    return (choose or choose_token)(logits, sampling, noise.words(), len(tokens))


def choose_token(logits: np.ndarray, sampling: Sampling, key: tuple[int, int], position: int) -> int:
    """Gumbel-max over the candidates of `logits` [vocab] float32, which are not changed."""
    scaled = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to minus infinity
        scaled = (scaled - scaled.max()) / sampling.temperature
    ids = candidates(scaled, sampling)
    return int(ids[np.argmax(scaled[ids] + noise_of(key, position, ids, len(logits)))])


def adjust(logits: np.ndarray, sampling: Sampling, tokens: Sequence[int], prompt: int) -> np.ndarray:
    """Logits [vocab] with bias and penalties.

    The repetition penalty (CTRL, arXiv 1909.05858) looks at all tokens, presence and frequency at the
    tokens after the prompt.
    """
    presence, frequency = sampling.presence_penalty, sampling.frequency_penalty
    if sampling.repetition_penalty == 1 and not presence and not frequency and not sampling.logit_bias:
        return logits
    logits = logits.copy()
    if sampling.repetition_penalty != 1:
        seen = np.unique(np.asarray(tokens, dtype=np.int64))
        values = logits[seen]
        penalty = np.float32(sampling.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
    if presence or frequency:
        seen, counts = np.unique(np.asarray(tokens[prompt:], dtype=np.int64), return_counts=True)
        logits[seen] -= (presence + frequency * counts).astype(np.float32)
    for token, bias in sampling.logit_bias.items():
        logits[token] += np.float32(bias)
    return logits


def candidates(scaled: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Ids [n] that top-k, top-p (nucleus, arXiv 1904.09751) and min-p (2407.01082) leave, in that order.

    `scaled` [vocab]: logits over temperature. Equal logits rank by id. At least one id is left.
    """
    if sampling.top_k:
        ids = _ranked(scaled, sampling.top_k)[: sampling.top_k]
    elif sampling.top_p < 1:
        ids = _nucleus_prefix(scaled, sampling.top_p)
    else:
        ids = np.arange(len(scaled))
    if sampling.top_p < 1:
        total = _log_sum_exp(scaled[ids] if sampling.top_k else scaled)
        mass = np.cumsum(np.exp(scaled[ids] - total))
        ids = ids[: int(np.searchsorted(mass, sampling.top_p)) + 1]
    if sampling.min_p > 0:
        values = scaled[ids]
        ids = ids[values >= values.max() + np.log(sampling.min_p)]
    return ids


def token_logprob(logits: np.ndarray, token: int, top: int) -> TokenLogprob:
    """Log-probability of `token` and of the `top` best under softmax(logits [vocab])."""
    values = logits.astype(np.float64)
    total = _log_sum_exp(values)
    best = _ranked(values, top)[:top] if top else ()
    return TokenLogprob(token, float(values[token] - total), tuple((int(i), float(values[i] - total)) for i in best))


def _ranked(values: np.ndarray, count: int) -> np.ndarray:
    """Ids of at least the `count` largest values, best first, ties by id."""
    if count >= len(values):
        ids = np.arange(len(values))
    else:
        bound = np.partition(values, len(values) - count)[len(values) - count]
        ids = np.flatnonzero(values >= bound)
    return ids[np.argsort(-values[ids], kind="stable")]


def _nucleus_prefix(scaled: np.ndarray, top_p: float) -> np.ndarray:
    """Ranked ids that hold at least mass `top_p`; all of them only where a few do not suffice."""
    ids = _ranked(scaled, _FIRST_CANDIDATES)
    mass = np.exp(scaled[ids] - _log_sum_exp(scaled)).sum()
    return ids if mass >= top_p else _ranked(scaled, len(scaled))


def _log_sum_exp(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))
