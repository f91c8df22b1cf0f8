"""Flags derived from the configuration dataclasses, so that a field is described once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

Verb = Callable[..., None]


def with_flags(**configs: type) -> Callable[[Verb], Verb]:
    """Replaces each named parameter of a verb by one flag a field of its dataclass.

    `with_flags(options=EngineOptions)` gives the verb `--memory`, `--context`, … and hands it one
    `EngineOptions` as `options`. Help texts come from the field's `help` metadata; a field of a type annotated
    for Typer, as those of a group of flags that several verbs have, is that flag as it stands.
    """

    def decorate(verb: Verb) -> Verb:
        plain = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name not in configs]
        derived = {name: _flags(config) for name, config in configs.items()}

        @functools.wraps(verb)
        def wrapper(**values: Any) -> None:
            for name, parameters in derived.items():
                given = {p.name: _frozen(values.pop(p.name)) for p in parameters}
                values[name] = configs[name](**given)
            verb(**values)

        everything = plain + [p for parameters in derived.values() for p in parameters]
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in everything]
        wrapper.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in keyword_only}
        del wrapper.__wrapped__
        return wrapper

    return decorate


def flag_fields(config: type) -> list[Field]:
    """Fields that are flags: those with a help text, and those of an annotated type."""
    hints = get_type_hints(config, include_extras=True)
    return [f for f in fields(config) if f.metadata.get("help") or get_origin(hints[f.name]) is Annotated]


@functools.cache
def _flags(config: type) -> list[inspect.Parameter]:
    hints = get_type_hints(config, include_extras=True)
    return [_flag(config, field, hints[field.name]) for field in flag_fields(config)]


def _flag(config: type, field: Field, hint: Any) -> inspect.Parameter:
    default, kind = field.default, inspect.Parameter.KEYWORD_ONLY
    if get_origin(hint) is Annotated:
        return inspect.Parameter(field.name, kind, default=default, annotation=hint)
    if field.default_factory is not MISSING:
        default = field.default_factory()
    annotation, default = _as_list(hint, default)
    shown = default not in (None, [])
    option = typer.Option(help=field.metadata["help"], show_default=shown, rich_help_panel=_panel(config))
    return inspect.Parameter(field.name, kind, default=default, annotation=Annotated[annotation, option])


def _as_list(hint: Any, default: Any) -> tuple[Any, Any]:
    """A tuple of values is a flag that may be given more than once."""
    inner = hint
    if get_origin(hint) in (Union, UnionType):
        inner = next((arm for arm in get_args(hint) if arm is not type(None)), hint)
    if get_origin(inner) is tuple:
        return list[get_args(inner)[0]], list(default or ())  # type: ignore[misc]
    return hint, default


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _panel(config: type) -> str:
    return {"EngineOptions": "Engine", "ServerConfig": "Server"}.get(config.__name__, config.__name__)
