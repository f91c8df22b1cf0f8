"""The compiled module; `cpp/module.cpp` says what it has."""

from typing import Any

def __getattr__(name: str) -> Any: ...
