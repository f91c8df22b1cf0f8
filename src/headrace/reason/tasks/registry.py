"""Tasks by name: `gsm8k`, `lettered`, `arith:sums(steps=4)`, `gym:chain_sum(min_terms=2, max_terms=3)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any

from headrace.reason.tasks.item import Item
from headrace.spec.errors import InvalidRequest

_SPEC = re.compile(r"\s*(?P<name>\w+)(?::(?P<family>\w+))?\s*(?P<settings>\(.*\))?\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Kind:
    """A task, and the module of this folder whose function of that name makes its questions.

    `families`: what may stand after the colon, from that module; None for a task that has none.
    """

    name: str
    module: str
    families: Callable[[Any], list[str]] | None = None


KINDS = {
    kind.name: kind
    for kind in (
        Kind("gsm8k", "gsm8k"),
        Kind("arith", "arith_items", lambda room: room.families()),
        Kind("gym", "gym", lambda room: room.families()),
        Kind("reader", "reader_items", lambda room: room.families()),
        Kind("lettered", "posed_items"),
        Kind("sets", "posed_items", lambda room: room.families()),
        Kind("worlds", "posed_items"),
    )
}


def items(spec: str, count: int, seed: int = 0) -> list[Item]:
    """`count` questions of a task; more are the same with others behind. Raises InvalidRequest, ModelFileError."""
    match = _SPEC.fullmatch(spec)
    kind = KINDS.get(match["name"]) if match else None
    if match is None or kind is None:
        raise InvalidRequest(f"There is no task {spec!r}; give one of {', '.join(KINDS)}.", "task")
    room = import_module(f"headrace.reason.tasks.{kind.module}")
    load: Callable[..., list[Item]] = getattr(room, kind.name)
    settings = _settings(match["settings"], spec)
    if kind.families is None:
        if match["family"] or settings:
            raise InvalidRequest(f"{kind.name} has no families and no settings; write --task {kind.name}.", "task")
        return load(count, seed)
    if not match["family"]:
        known = ", ".join(kind.families(room))
        raise InvalidRequest(f"{kind.name} needs a family, as in {kind.name}:NAME; give one of {known}.", "task")
    try:
        return load(match["family"], count, seed, **settings)
    except TypeError:
        fault = _fault(load, settings)
        raise InvalidRequest(f"{spec} does not take these settings ({fault}); correct them.", "task") from None


def _fault(load: Callable[..., list[Item]], settings: Collection[str]) -> str:
    """What is wrong with settings that a task could not be made with."""
    known = list(signature(load).parameters)[3:]  # behind the family, the count and the seed
    unknown = [name for name in settings if name not in known]
    return f"no {', '.join(unknown)}, only {', '.join(known)}" if unknown else "a value is of the wrong kind"


def _settings(text: str | None, spec: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        call = ast.parse(f"task{text}", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
    except (SyntaxError, ValueError, AssertionError):
        raise InvalidRequest(
            f"The settings of {spec!r} cannot be read; write them like gym:gcd(min_value=1, max_value=100).", "task"
        ) from None
