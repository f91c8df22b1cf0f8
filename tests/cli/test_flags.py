"""The command line is frozen: a flag that changes changes this folder's flags.json, on purpose.

Write it anew with `python tests/cli/test_flags.py`.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.testing import CliRunner

from headrace.cli.flags import flag_fields, with_flags
from headrace.cli.main import app
from headrace.server.config import ServerConfig
from headrace.spec.options import EngineOptions

GOLDEN = Path(__file__).with_name("flags.json")


def type_text(annotation: Any) -> str | list[str]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def described(parameter: Any, annotation: Any) -> dict[str, Any]:
    return {
        "flags": [*parameter.opts, *parameter.secondary_opts],
        "type": type_text(annotation),
        "default": str(parameter.default) if parameter.default not in (None, [], ()) else None,
        "required": parameter.required,
        "argument": parameter.param_type_name == "argument",
    }


def command_line() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(prefix: str, group: typer.Typer) -> None:
        commands = typer.main.get_group(group).commands
        for info in group.registered_commands:
            name = info.name or info.callback.__name__
            hints = inspect.signature(info.callback, eval_str=True).parameters
            found[f"{prefix} {name}"] = {p.name: described(p, hints[p.name].annotation) for p in commands[name].params}
        for child in group.registered_groups:
            walk(f"{prefix} {child.name}", child.typer_instance)

    walk("headrace", app)
    return found


def test_no_flag_has_changed() -> None:
    assert command_line() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_field_of_the_configurations_is_a_flag() -> None:
    for verbs, config in ((("run", "chat", "serve", "bench"), EngineOptions), (("serve",), ServerConfig)):
        names = {f.name for f in flag_fields(config)}
        assert names
        for verb in verbs:
            assert names <= set(command_line()[f"headrace {verb}"])


@dataclass(frozen=True)
class Demo:
    depth: int | None = field(default=None, metadata={"help": "How deep."})
    mode: Literal["slow", "fast"] = field(default="slow", metadata={"help": "How."})
    cache: bool = field(default=True, metadata={"help": "Whether."})
    names: tuple[str, ...] = field(default=(), metadata={"help": "Which."})
    share: Annotated[float, typer.Option("--part", max=1, help="How much.")] = 0.5
    hidden: int = 7


def demo(*words: str) -> Demo:
    seen: list[Demo] = []
    small = typer.Typer()

    @small.command()
    @with_flags(config=Demo)
    def verb(config: Demo) -> None:
        seen.append(config)

    result = CliRunner().invoke(small, list(words))
    assert result.exit_code == 0, result.output
    return seen[0]


def test_flags_become_one_configuration() -> None:
    assert demo() == Demo()
    words = ["--depth", "3", "--mode", "fast", "--no-cache", "--names", "a", "--names", "b"]
    assert demo(*words, "--part", "0.25") == Demo(3, "fast", False, ("a", "b"), 0.25)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(command_line(), indent=1) + "\n", encoding="utf-8")
