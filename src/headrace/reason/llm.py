"""The offline surface with test-time compute: `LLM.solve` beside generate, chat and embed."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import UnionType
from typing import Any

from headrace.engine import llm
from headrace.reason.answers import answer_space
from headrace.reason.scorers import scorer_named
from headrace.reason.solve import Order, Result, solve
from headrace.reason.task import Task
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import AnswerSpace, Scorer
from headrace.spec.sampling import Sampling, Stop
from headrace.spec.trace import Event, Trace


class LLM(llm.LLM):
    """A loaded model in this process. Use it as a context manager, or close it.

    >>> with LLM("smollm2-135m") as llm:
    ...     print(llm.chat([{"role": "user", "content": "Name a river."}]).text)
    ...     print(llm.solve("What is 17 + 25?", "self_consistency(n=8)", answer="number").answer)
    """

    def solve(
        self,
        question: str | Task,
        strategy: str = "self_consistency",
        *,
        scorer: str | Scorer | None = None,
        budget: str | Budget | None = None,
        answer: str | AnswerSpace = "text",
        seed: int | None = None,
        sampling: Sampling | None = None,
        max_tokens: int = 256,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
    ) -> Result:
        """Answers a question with a strategy, within a budget ("400 tok, 10 s"). Raises InvalidRequest."""
        task = self._task(question, answer, max_tokens)
        order = _order(strategy, scorer, budget, seed, sampling, adapter, adapter_scale)
        return _in_new_loop(solve(self.engine, task, order))

    def solve_stream(
        self, question: str | Task, strategy: str = "self_consistency", **how: Any
    ) -> Iterator[Event | Result]:
        """The events of a run as they happen, the Result last. Takes what `solve` takes.

        Closing the iterator ends the run.
        """
        task = self._task(question, how.pop("answer", "text"), how.pop("max_tokens", 256))
        names = ("scorer", "budget", "seed", "sampling", "adapter", "adapter_scale")
        order = _order(strategy, **{name: how.pop(name, None) for name in names})
        if how:
            raise TypeError(f"solve_stream takes no {', '.join(how)}")
        news: queue.SimpleQueue[Event | Result | BaseException] = queue.SimpleQueue()
        trace = Trace()
        trace.listen(news.put)

        running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

        async def run() -> Result:
            running.append((asyncio.get_running_loop(), asyncio.current_task()))
            return await solve(self.engine, task, order, trace)

        def work() -> None:
            try:
                news.put(asyncio.run(run()))
            except BaseException as error:
                news.put(error)

        thread = threading.Thread(target=work, name="headrace-solve", daemon=True)
        thread.start()
        try:
            while True:
                item = news.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                if isinstance(item, Result):
                    return
        finally:
            for loop, begun in running:
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    loop.call_soon_threadsafe(begun.cancel if begun else loop.stop)
            thread.join()

    def _task(self, question: str | Task, answer: str | AnswerSpace, max_tokens: int) -> Task:
        if isinstance(question, Task):
            return question
        _check("question", question, str, "a text or a Task")
        _check("max_tokens", max_tokens, int, "a whole number")
        if not isinstance(answer, str) and not hasattr(answer, "extract"):
            raise InvalidRequest(f"answer is {answer!r}; give a kind like 'number' or an AnswerSpace.", "answer")
        tokenizer = self.engine.tokenizer
        chat = tokenizer is not None and tokenizer.chat_template is not None
        space = answer_space(answer) if isinstance(answer, str) else answer
        return Task(question, space, ending=Stop(tokens=max_tokens), chat=chat)


def _order(
    strategy: str,
    scorer: str | Scorer | None,
    budget: str | Budget | None,
    seed: int | None,
    sampling: Sampling | None,
    adapter: str | None,
    adapter_scale: float | None,
) -> Order:
    _check("strategy", strategy, str, "a text like 'self_consistency(n=8)'")
    if not isinstance(scorer, str | None) and not hasattr(scorer, "score"):
        raise InvalidRequest(f"scorer is {scorer!r}; give 'judge', 'probe(NAME)' or a Scorer.", "scorer")
    _check("budget", budget, str | Budget | None, "a text like '400 tok' or a Budget")
    _check("seed", seed, int | None, "a whole number, or None to draw one")
    _check("sampling", sampling, Sampling | None, "a Sampling")
    _check("adapter", adapter, str | None, "the name of one that is loaded")
    order = Order(strategy, scorer=scorer_named(scorer, folders=True) if isinstance(scorer, str) else scorer, seed=seed)
    spent = Budget.parse(budget) if isinstance(budget, str) else budget or Budget()
    identity = {"adapter": adapter, "adapter_scale": 1.0 if adapter_scale is None else adapter_scale}
    return replace(order, budget=spent, sampling=sampling or Sampling(temperature=0.8), principal=identity)


def _check(name: str, value: object, kinds: type | UnionType, instead: str) -> None:
    """Raises InvalidRequest for a value of another type."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InvalidRequest(f"{name} is {value!r}; give {instead}.", name)


def _in_new_loop(work: Any) -> Any:
    """Runs a coroutine to its end, in a thread of its own where this one has a loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    box: list[Any] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            box.append(asyncio.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, name="headrace-solve")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return box[0]
