"""Chat templates: the model's own Jinja program, run in a sandbox."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.spec.errors import HeadraceError


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    generation_prompt: bool,
    tools: Any,
    names: Mapping[str, str],
) -> str:
    """The prompt text. Raises HeadraceError where the template refuses the messages or fails."""
    import jinja2

    try:
        compiled = _compile(template)
        return compiled.render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=generation_prompt,
            tools=tools,
            documents=None,
            **names,
        )
    except (jinja2.TemplateError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise HeadraceError(f"The chat template refuses the messages ({error}); change their roles or order.") from None


@functools.lru_cache(maxsize=16)
def _compile(template: str) -> Any:
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)
