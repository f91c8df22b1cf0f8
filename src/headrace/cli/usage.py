"""Words that no verb understands, as one sentence of our own: the library's change with its versions."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "no value"}


def usage_sentence(error: Any) -> str:
    """For a UsageError of typer: what is wrong with which word, and where the right ones stand."""
    command = error.ctx.command_path if error.ctx is not None else "headrace"
    return f"{_problem(error, command)}; see `{command} --help`."


def _problem(error: Any, command: str) -> str:
    kind, parameter = type(error).__name__, getattr(error, "param", None)
    if kind == "NoSuchOption":
        known = " or ".join(sorted(error.possibilities or ()))
        return f"{command} has no option {error.option_name}" + (f"; did you mean {known}" if known else "")
    if kind == "MissingParameter" and parameter is not None:
        return f"{command} needs {_name(error, parameter)}"
    if kind == "BadParameter" and parameter is not None:
        return f"{_name(error, parameter)} takes {_wanted(*_declared(error, parameter))}"
    return " ".join(str(error.format_message()).split()).rstrip(".")


def _name(error: Any, parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(_declared(error, parameter)[1].metavar or parameter.name.upper())


def _declared(error: Any, parameter: Any) -> tuple[Any, Any]:
    """The type of a verb's parameter, and what typer was told of it."""
    annotation = inspect.signature(error.ctx.command.callback, eval_str=True).parameters[parameter.name].annotation
    if get_origin(annotation) is Annotated:
        kind, told = get_args(annotation)[:2]
        return kind, told
    return annotation, None


def _wanted(kind: Any, told: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        kind = next(arm for arm in get_args(kind) if arm is not NoneType)
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    least = getattr(told, "min", None)
    return KINDS.get(kind, "another value") + (f" of at least {least:g}" if least is not None else "")
