"""Value heads: a probability read off a hidden state. What is here needs numpy alone; `train_head` needs torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from headrace.model.folder import read_json
from headrace.spec.errors import InvalidRequest, ModelFileError

if TYPE_CHECKING:
    from headrace.engine.surface import Prompt, Surface

WEIGHTS, ABOUT = "value_head.safetensors", "value_head.json"


@dataclass(frozen=True, slots=True)
class Head:
    """One linear layer or two with tanh between them, then the logistic function.

    `weights`: pairs of a matrix [out, in] and a bias [out] in float32; the last one has one row. `state`: what
    to read of a sequence, such as "hidden:-1". `base`: the model it was trained on.
    """

    weights: tuple[tuple[np.ndarray, np.ndarray], ...]
    state: str = "hidden:-1"
    base: str = ""

    @property
    def hidden(self) -> int:
        return int(self.weights[0][0].shape[1])

    @property
    def digest(self) -> str:
        """Ten hex digits of all that decides its values."""
        found = hashlib.sha256(f"{self.base}/{self.state}/{len(self.weights)}".encode())
        for value in (array for pair in self.weights for array in pair):
            found.update(np.ascontiguousarray(value, np.float32).tobytes())
        return found.hexdigest()[:10]

    def __call__(self, hidden: np.ndarray) -> np.ndarray:
        """hidden [..., hidden] -> probabilities [...]. Raises InvalidRequest for states of another width."""
        if hidden.shape[-1] != self.hidden:
            raise InvalidRequest(
                f"The head reads states of width {self.hidden} and these have {hidden.shape[-1]}; "
                "use it with the model it was trained on.",
                "head",
            )
        x = hidden.astype(np.float32)
        for number, (matrix, bias) in enumerate(self.weights):
            x = (np.tanh(x) if number else x) @ matrix.T + bias
        probability: np.ndarray = 0.5 * (1 + np.tanh(0.5 * x[..., 0]))
        return probability

    def save(self, folder: Path) -> None:
        held = {f"{number}.weight": matrix for number, (matrix, _) in enumerate(self.weights)}
        held |= {f"{number}.bias": bias for number, (_, bias) in enumerate(self.weights)}
        save_file({name: np.ascontiguousarray(value, np.float32) for name, value in held.items()}, folder / WEIGHTS)
        about = {"kind": "value_head", "layers": len(self.weights), "state": self.state, "base": self.base}
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Head:
        """Raises ModelFileError for a folder that `save` did not write."""
        about = read_json(folder / ABOUT)
        try:
            held = load_file(folder / WEIGHTS)
            pairs = [(held[f"{number}.weight"], held[f"{number}.bias"]) for number in range(int(about["layers"]))]
            return cls(tuple(pairs), str(about["state"]), str(about["base"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            raise ModelFileError(f"{folder} holds no whole value head; train it again.") from None


def read_states(engine: Surface, prompts: Sequence[Prompt], state: str = "hidden:-1") -> np.ndarray:
    """The hidden state after the last token of each prompt: [prompts, hidden] float32."""
    found: list[np.ndarray] = []
    size = engine.options.queue
    for start in range(0, len(prompts), size):
        with ExitStack() as opened:
            sequences = [opened.enter_context(engine.open_now(prompt)) for prompt in prompts[start : start + size]]
            found += [answer.result() for answer in [sequence.read(state) for sequence in sequences]]
    return np.stack(found) if found else np.zeros((0, engine.spec.hidden), np.float32)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a positive has a higher score than a negative, ties counting half; nan without one of each."""
    labels = np.asarray(labels, bool)
    _, index, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))
