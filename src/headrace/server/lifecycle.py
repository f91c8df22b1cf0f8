"""A request's life: it ends early when its client leaves, its time is up, or the server must stop."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from starlette.types import Receive

from headrace.server.errors import ApiError, ClientGone, draining


class Job:
    """One request in flight. `end(reason)` cancels the task that serves it; leaving the block raises the reason.

    Works like asyncio.timeout: a cancellation that came from elsewhere passes through untouched.
    """

    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._task: asyncio.Task[object] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.reason: ApiError | None = None
        self.started_at = time.time()

    async def __aenter__(self) -> Job:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        seconds = self._life.request_seconds
        self._timer = loop.call_later(seconds, self.end, _out_of_time(seconds))
        self._life.jobs.add(self)
        return self

    def watch(self, receive: Receive) -> None:
        """From now on a disconnect ends the job; the body must have been read."""
        self._watch = asyncio.create_task(self._until_gone(receive))

    def end(self, reason: ApiError) -> None:
        """The first reason counts; a job that is over takes none."""
        if self.reason is None and self in self._life.jobs and self._task is not None:
            self.reason = reason
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._life.jobs.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self.reason is None or self._task is None:
            return
        if self._task.uncancel() == 0 and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise self.reason from None

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end(ClientGone())


class Lifecycle:
    """All requests in flight, and whether new ones are still taken."""

    def __init__(self, request_seconds: float) -> None:
        self.request_seconds = request_seconds
        self.jobs: set[Job] = set()
        self.draining = False

    def job(self) -> Job:
        return Job(self)

    async def drain(self, seconds: float) -> bool:
        """Refuses new requests and waits for those in flight; after `seconds` ends the rest.

        Returns whether all of them finished by themselves.
        """
        self.draining = True
        if await self._idle(seconds):
            return True
        self.abort()
        await self._idle(5.0)
        return False

    def abort(self) -> None:
        for job in tuple(self.jobs):
            job.end(draining())

    async def _idle(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        limit = loop.time() + seconds
        while self.jobs and loop.time() < limit:
            await asyncio.sleep(0.02)
        return not self.jobs


def _out_of_time(seconds: float) -> ApiError:
    return ApiError(
        504,
        f"The request took longer than the server's limit of {seconds:g} seconds; ask for fewer tokens.",
        code="time_limit",
    )
