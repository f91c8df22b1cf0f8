"""What every engine offers, whether it runs in this process or in another: opening sequences and checking input."""

from __future__ import annotations

import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from headrace.engine.answer import Answer, Extension, Step
from headrace.engine.sampling import NoiseKey
from headrace.engine.sequence import Mark, Place, SequenceHandle
from headrace.engine.tasks import Pool
from headrace.spec.adapter import MOST_STRENGTH, Adapter
from headrace.spec.errors import ContextExceeded, InvalidRequest, UnsupportedModel, embeds_only
from headrace.spec.events import EventLog
from headrace.spec.executor import Guarantees
from headrace.spec.labels import LOCAL, Label
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.model.tokenizer import Tokenizer

Prompt: TypeAlias = "str | Sequence[int] | Sequence[Mapping[str, Any]]"


class Surface(ABC):
    """The public face of an engine. Subclasses run the verbs."""

    spec: ModelSpec
    guarantees: Guarantees
    tokenizer: Tokenizer | None
    options: EngineOptions
    ledger: Ledger
    model_name: str
    context: int
    """Tokens of the longest sequence."""

    def __init__(self) -> None:
        self.events = EventLog()
        self._ids = itertools.count(1)

    async def open(self, prompt: Prompt, **how: Any) -> SequenceHandle:
        """`open_now` with the tokenising off the event loop."""
        if isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], Mapping)):
            import asyncio

            return await asyncio.to_thread(self.open_now, prompt, **how)
        return self.open_now(prompt, **how)

    def open_now(
        self,
        prompt: Prompt,
        *,
        principal: str = LOCAL,
        sharing: str | None = None,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
        seed: int | None = None,
        sampling: Sampling | None = None,
        pin: bool = False,
        place: Place | None = None,
    ) -> SequenceHandle:
        """A new sequence: nothing runs until a verb needs it. `seed` None draws one (see `handle.seed`).

        `place`, of a handle that is gone, takes the seed's place: the sequence draws what that one would have.
        `adapter`: one of `adapters`, which it and its forks are computed with; `adapter_scale` multiplies what
        it adds, and 0 is the model without it.

        Raises InvalidRequest, ContextExceeded; UnsupportedModel for text without a tokenizer.
        """
        adapted = self._check_adapter(adapter, adapter_scale)
        tokens = self.encode(prompt)
        if not tokens:
            raise InvalidRequest("The prompt is empty; give at least one token.", "prompt")
        self._check_length(len(tokens))
        how = (place or Place(secrets.randbits(63) if seed is None else seed), sampling or Sampling(), None, *adapted)
        handle = SequenceHandle(self, next(self._ids), tokens, len(tokens), *how)
        self._create(handle, Label(principal, sharing), pin)
        return handle

    async def extend_many(
        self, sequences: Sequence[SequenceHandle], stop: Stop | None = None, sampling: Sampling | None = None
    ) -> list[Step]:
        """Extends a frontier together: one admission for all."""
        extensions: list[Extension] = []
        try:
            for sequence in sequences:
                extensions.append(sequence.extend(stop, sampling))
            return [await extension for extension in extensions]
        except BaseException:  # one was refused or the task was cancelled: none goes on unseen
            for extension in extensions:
                extension.cancel()
            raise

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of text, of chat messages (through the chat template), or the checked ids themselves."""
        if isinstance(prompt, str):
            return self._tokenizer().encode(prompt)
        items = list(prompt)
        if items and isinstance(items[0], Mapping):
            return self._tokenizer().encode_chat(items)  # type: ignore[arg-type]
        return self._check_ids(items)  # type: ignore[arg-type]

    @property
    @abstractmethod
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that sequences can be opened with."""

    @abstractmethod
    def add_adapter(self, name: str, source: str | Path | Adapter) -> None:
        """Loads a LoRA adapter between two steps: a folder as PEFT saves it, or the matrices themselves.

        Raises InvalidRequest for a name that cannot be had, ModelFileError, UnsupportedModel, PlanRejected.
        """

    @abstractmethod
    def remove_adapter(self, name: str) -> None:
        """Frees an adapter. Raises InvalidRequest while sequences are open with it, or when it is not there."""

    @abstractmethod
    def stats(self) -> dict[str, int | float]:
        """Counters as of the last step; pages of idle handles count as used, cached ones do not."""

    @abstractmethod
    def healthy(self) -> str | None:
        """None while steps can run, else why they cannot."""

    @abstractmethod
    def clear_cache(self) -> None:
        """Forgets all cached prefixes."""

    @abstractmethod
    def check(self) -> None:
        """Raises AssertionError unless every page is accounted for exactly."""

    @abstractmethod
    def close(self) -> None:
        """Fails what is open with EngineStopped and frees everything; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- what handles ask for ----------------------------------------------------------------------

    @abstractmethod
    def _create(self, handle: SequenceHandle, label: Label, pin: bool) -> None: ...

    @abstractmethod
    def _extend(
        self, handle: SequenceHandle, tokens: list[int], stop: Stop, sampling: Sampling, noise: NoiseKey, most: int
    ) -> Extension: ...

    @abstractmethod
    def _append(self, handle: SequenceHandle, tokens: list[int]) -> None: ...

    @abstractmethod
    def _truncate(self, handle: SequenceHandle, mark: Mark, replay: bool) -> None: ...

    @abstractmethod
    def _branch(self, parent: SequenceHandle, kid: SequenceHandle) -> None: ...

    @abstractmethod
    def _score(self, handle: SequenceHandle, length: int, pieces: list[list[int]]) -> Answer[list[list[float]]]: ...

    @abstractmethod
    def _read(self, handle: SequenceHandle, index: int, pool: Pool) -> Answer[np.ndarray]: ...

    @abstractmethod
    def _drop(self, handle: SequenceHandle) -> None: ...

    # -- checks ------------------------------------------------------------------------------------

    def _check_adapter(self, adapter: str | None, scale: float) -> tuple[str | None, float]:
        """What to open with: at a strength of 0 no adapter at all."""
        if not abs(scale) <= MOST_STRENGTH:
            most = f"give a number from -{MOST_STRENGTH} to {MOST_STRENGTH}"
            raise InvalidRequest(f"adapter_scale is {scale}; {most}.", "adapter_scale")
        if adapter is None and scale != 1:
            raise InvalidRequest("adapter_scale is for an adapter; give adapter as well.", "adapter_scale")
        if adapter is not None and adapter not in self.adapters:
            loaded = f"use one of {', '.join(self.adapters)}" if self.adapters else "none is, so leave adapter out"
            raise InvalidRequest(f"Adapter {adapter!r} is not loaded; {loaded}.", "adapter")
        return (adapter, float(scale)) if scale else (None, 1.0)

    def _check_new_adapter(self, name: str) -> None:
        if not name or name != name.strip() or "=" in name:
            raise InvalidRequest(f"{name!r} cannot name an adapter; choose a name without spaces around or '='.")
        if name in self.adapters:
            raise InvalidRequest(f"Adapter {name} is loaded already; remove it first, or choose another name.")

    def _check_length(self, length: int) -> None:
        if length > self.context:
            raise ContextExceeded(
                f"The prompt has {length} tokens and the context is {self.context}; {self._more_context()}."
            )

    def _more_context(self) -> str:
        """What would make the context longer, where something can."""
        if self.context < min(self.options.context or self.spec.context, self.spec.context):
            return "shorten the prompt or raise --state-memory"
        if self.context < self.spec.context:
            return "shorten the prompt or raise --context"
        return "shorten the prompt"

    def _check_ids(self, ids: Sequence[int]) -> list[int]:
        for token in ids:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < self.spec.vocab:
                raise InvalidRequest(
                    f"Token id {token!r} is not in 0 … {self.spec.vocab - 1}; give ids of this model.", "prompt"
                )
        return list(ids)

    def _check_generation(self, stop: Stop, sampling: Sampling) -> None:
        if not self.spec.causal:
            raise UnsupportedModel(embeds_only(self.model_name, "generate text"))
        if stop.text:
            self._tokenizer()
        self._check_ids([*stop.token_ids, *sampling.logit_bias])

    def _encode_piece(self, piece: str | Sequence[int]) -> list[int]:
        if isinstance(piece, str):
            return self._tokenizer().encode(piece, special=False, bos=False)
        return self._check_ids(piece)

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UnsupportedModel(f"{self.model_name} has no tokenizer; send token ids instead of text.")
        return self.tokenizer

    def _hidden_index(self, what: str) -> int:
        count = len(self.spec.layers) + 1
        kind, _, number = what.partition(":")
        if kind == "hidden" and number.removeprefix("-").isdecimal() and -count <= int(number) < count:
            return int(number) % count
        raise InvalidRequest(f"{what!r} cannot be read; ask for hidden:0 … hidden:{count - 1} or hidden:-1.", "what")

    def _fork(self, parent: SequenceHandle, tokens: list[int], path: tuple[int, ...]) -> SequenceHandle:
        how = (Place(parent.seed, path), parent.sampling, parent.tree, parent.adapter, parent.adapter_scale)
        kid = SequenceHandle(self, next(self._ids), tokens, parent.prompt_tokens, *how)
        self._branch(parent, kid)
        return kid
