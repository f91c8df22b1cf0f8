"""How tokens are drawn and when a generation stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from headrace.spec.errors import InvalidRequest

FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "error"]
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0 and penalties 0 (repetition: 1) are off.

    Order: logit bias and penalties, temperature, top-k, top-p, min-p, then Gumbel-max with noise keyed
    by (seed, path, position). `seed` None: one is drawn when the sequence is opened, and echoed.
    `logprobs`: None for none, else how many alternatives (0 to 20) to report beside the chosen token;
    they are of the model's own distribution, before bias, penalties and temperature.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0, 100)
        _within("top_k", self.top_k, 0, 2**31)
        _within("top_p", self.top_p, 0, 1, open_low=True)
        _within("min_p", self.min_p, 0, 1)
        _within("repetition_penalty", self.repetition_penalty, 0, 100, open_low=True)
        _within("presence_penalty", self.presence_penalty, -2, 2)
        _within("frequency_penalty", self.frequency_penalty, -2, 2)
        for name in ("logprobs", "prompt_logprobs"):
            if (value := getattr(self, name)) is not None:
                _within(name, value, 0, MAX_TOP_LOGPROBS)


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends an extend: at `tokens` new tokens, at one of `token_ids`, or where one of `text` appears.

    The matched text is cut from the step's text (kept with `include`); its tokens stay in the sequence.
    The model's own end tokens stop as well unless `ignore_eos`.
    """

    tokens: int | None = None
    token_ids: tuple[int, ...] = ()
    text: tuple[str, ...] = ()
    include: bool = False
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if self.tokens is not None:
            _within("max_tokens", self.tokens, 0, 2**31)
        if any(not text for text in self.text):
            raise InvalidRequest("stop has an empty string; give at least one character.", "stop")


def _within(name: str, value: float, low: float, high: float, open_low: bool = False) -> None:
    ok = (low < value if open_low else low <= value) and value <= high
    if not ok:
        bracket = "(" if open_low else "["
        raise InvalidRequest(f"{name} is {value}; give a value in {bracket}{low:g}, {high:g}].", name)
