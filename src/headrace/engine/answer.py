"""What a verb returns: await it in asyncio, or ask for its result from a plain thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from headrace.engine.sampling import TokenLogprob
from headrace.spec.sampling import FinishReason

if TYPE_CHECKING:
    import asyncio  # whoever awaits has it; a plain thread starts without

T = TypeVar("T")


class Token(NamedTuple):
    """A drawn token. `text` is what became safe to show with it: "" while a character or stop string is open."""

    id: int
    text: str
    logprob: TokenLogprob | None = None


@dataclass(slots=True)
class Step:
    """What one extend produced. Seconds count from the extend's call; `first_token_seconds` is 0 without tokens.

    `prompt_logprobs[i]` belongs to token i of the sequence as it stood before the extend; the first is None.
    """

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason = "length"
    stop: str | int | None = None
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    seconds: float = 0.0


class Answer(Generic[T]):
    """A result to come. Cancelling the task that awaits or iterates it cancels the work."""

    def __init__(self, cancel: Callable[[], None] | None = None) -> None:
        self._future: Future[T] = Future()
        self._cancel = cancel

    def done(self) -> bool:
        return self._future.done()

    def result(self, timeout: float | None = None) -> T:
        """Waits in a plain thread. Raises what the verb raised, or TimeoutError after `timeout` seconds."""
        return self._future.result(timeout)

    def cancel(self) -> None:
        """Frees the work at the next step: an extend ends with what it has, anything else raises Cancelled."""
        if self._cancel is not None and not self.done():
            self._cancel()

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        import asyncio

        try:
            return await asyncio.shield(asyncio.wrap_future(self._future))
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _complete(self, value: T) -> None:
        if not self._future.done():
            self._future.set_result(value)

    def _fail(self, error: BaseException) -> None:
        if not self._future.done():
            self._future.set_exception(error)


def ready(value: T) -> Answer[T]:
    """An answer that is already there."""
    answer: Answer[T] = Answer()
    answer._complete(value)
    return answer


class Extension(Answer[Step]):
    """A running extend: await it for the Step, or iterate it (async or not) for its tokens as they come."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        super().__init__(cancel)
        self._tokens: deque[Token] = deque()
        self._arrived: threading.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None

    def __iter__(self) -> Iterator[Token]:
        arrived = self._arrived = self._arrived or threading.Event()
        while True:
            arrived.clear()
            finished = self.done()
            while self._tokens:
                yield self._tokens.popleft()
            if finished:
                self.result()
                return
            arrived.wait()

    async def __aiter__(self) -> AsyncIterator[Token]:
        import asyncio

        woken = self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        while True:
            woken.clear()
            finished = self.done()
            while self._tokens:
                yield self._tokens.popleft()
            if finished:
                self.result()
                return
            try:
                await woken.wait()
            except asyncio.CancelledError:
                self.cancel()
                raise

    def pending(self) -> list[Token]:
        """Takes the tokens that have arrived and were not iterated yet."""
        taken = []
        while self._tokens:
            taken.append(self._tokens.popleft())
        return taken

    def _push(self, token: Token) -> None:
        self._tokens.append(token)

    def _wake(self) -> None:
        if self._woken is not None:
            self._woken.set()


class Deliveries:
    """Wakes the readers of a step's news: one call into each event loop, whatever the number of readers."""

    def __init__(self) -> None:
        self._extensions: list[Extension] = []
        self.text_seconds = 0.0
        """Time in which this step's tokens became text."""

    def note(self, extension: Extension) -> None:
        self._extensions.append(extension)

    def send(self) -> None:
        extensions, self._extensions = self._extensions, []
        by_loop: dict[asyncio.AbstractEventLoop, list[Extension]] = {}
        for extension in extensions:
            if extension._arrived is not None:
                extension._arrived.set()
            if extension._loop is not None:
                by_loop.setdefault(extension._loop, []).append(extension)
        for loop, readers in by_loop.items():
            try:
                loop.call_soon_threadsafe(_wake_all, readers)
            except RuntimeError:
                continue  # the loop was closed: its readers are gone


def _wake_all(extensions: list[Extension]) -> None:
    for extension in extensions:
        extension._wake()
