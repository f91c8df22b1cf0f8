"""How sure a model was while it wrote, from its own log-probabilities (Fu et al. 2025, DeepConf).

What is unknown is None or left out: it never counts as certain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def token_confidence(top_logprobs: Sequence[float]) -> float | None:
    """-mean of the log-probabilities of the most likely tokens at one place; high where one token has it all.

    None without any: a missing figure is no certainty.
    """
    return -math.fsum(top_logprobs) / len(top_logprobs) if top_logprobs else None


def lowest_confidence(confidences: Sequence[float], window: int) -> float | None:
    """The least mean of any `window` known tokens in a row; None before there are any."""
    if not confidences:
        return None
    width = min(window, len(confidences))
    sums = np.concatenate([[0.0], np.cumsum(confidences)])
    return float(np.min(sums[width:] - sums[:-width]) / width)
