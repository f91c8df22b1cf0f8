"""The data files beside this module: cues and topics for who generates, lists for who redacts."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal


@cache
def table(name: Literal["cues", "topics", "lists"]) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))
