"""How a task is put to a model, and how its answer is read back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.evidence.procbench.task import EMPTY, Form, Task

_LINE = re.compile(
    r"^[\s>*#`_\-]*(?:step|state(?:\s+after\s+step)?)\s*#?\s*(\d+)[\s*`_]*(?::|=|\)|\.|-+>?|→)+[\s*`_]*(.*)$",
    re.IGNORECASE,
)
_LEAD = re.compile(r"^(?:the\s+)?(?:new\s+|current\s+)?(?:state|list|total|result)\s*(?:is|=|:)\s*", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?!\w)")
_QUOTES = "\"'`*_“”‘’ \t"


FORM = "Write the state after every step on a line of its own, as 'Step 1: ...', 'Step 2: ...', and nothing else."


def question(task: Task) -> str:
    """The whole procedure, the form of the answer, the data and the number of steps."""
    return f"{task.rule}\n{FORM}\n\n{task.given}\nThere are {task.length} steps."


def conversation(task: Task, example: Task) -> list[dict[str, str]]:
    """Chat messages: a solved example of the same family, then the task."""
    return [
        {"role": "user", "content": question(example)},
        {"role": "assistant", "content": answer(example.gold)},
        {"role": "user", "content": question(task)},
    ]


def answer(states: Sequence[str]) -> str:
    """The answer that shows these states, in the form asked for."""
    return "\n".join(f"Step {number}: {state}" for number, state in enumerate(states, 1))


def read_answer(text: str, form: Form) -> list[str | None]:
    """The normalised states of an answer, by step number; None where a number is left out.

    Takes the marks, quotes and brackets that models add; of a step stated twice the first counts.
    """
    found: dict[int, str] = {}
    for line in text.splitlines():
        if (match := _LINE.match(line)) and 1 <= int(match[1]) <= 10_000:
            found.setdefault(int(match[1]), normalise(match[2], form))
    # A stray huge number must not turn into a list of thousands of gaps.
    last = max((number for number in found if number <= 4 * len(found)), default=0)
    return [found.get(number) for number in range(1, last + 1)]


def normalise(state: str, form: Form) -> str:
    """A state without marks and spacing: 'The list is [1, 2]' gives '1,2', and '"ab c"' gives 'abc'."""
    text = _LEAD.sub("", state.strip().strip(_QUOTES)).strip(_QUOTES)
    if text.strip(".()[]{} ").lower() in (EMPTY, "none") or (text in ("[]", "()") and form == "numbers"):
        return EMPTY
    if form == "text":
        return re.sub(r"[\s,\"'`]", "", text.rstrip(".")).lower()
    return ",".join(str(int(number)) for number in _NUMBER.findall(text)) or text.lower()
