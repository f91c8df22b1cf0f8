"""The one frozen configuration; the command line and the server's flags derive from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.spec.errors import InvalidRequest


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine is built. `help` metadata is the flag's help text; None means chosen at load."""

    memory: int | None = _option(None, "Most anonymous memory in MiB; a plan beyond it is refused before loading.")
    state_memory: int | None = _option(None, "Memory for the KV pages in MiB.")
    context: int | None = _option(None, "Longest sequence in tokens (default: what the model was trained for).")
    step_tokens: int = _option(256, "Most tokens in one engine step; long prompts are prefilled in chunks of it.")
    running: int = _option(64, "Most sequences that run at the same time.")
    queue: int = _option(1024, "Most requests that wait; more are refused.")
    backend: Literal["auto", "native", "reference"] = _option("auto", "What runs the model (auto: native).")
    activations: Literal["int16", "int8"] = _option(
        "int16", "Native: activations that meet quantised weights; int16 answers as fp32 does, int8 is quicker."
    )
    state_type: Literal["fp16", "fp32", "int8"] = _option(
        "fp16", "Native: type of keys and values; int8 holds nearly twice as many tokens and answers less exactly."
    )
    weights: Literal["auto", "int8", "int4", "bf16"] = _option(
        "auto", "Native: how float weights are stored (auto: as they are)."
    )
    dtype: Literal["fp32", "bf16"] = _option("fp32", "Reference: its arithmetic.")
    threads: int | None = _option(None, "Compute threads (default: physical cores).")
    adapter: tuple[str, ...] = _option((), "LoRA adapter as NAME=FOLDER, in PEFT's format; may be repeated.")
    prefix_cache: bool = _option(True, "Reuse pages of equal prefixes within a sharing domain.")

    def __post_init__(self) -> None:
        for name in ("memory", "state_memory", "context", "step_tokens", "running", "queue", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidRequest(f"--{name.replace('_', '-')} is {value}; give at least 1.", name)
        if self.threads is not None and self.threads > MOST_THREADS:
            raise InvalidRequest(f"--threads is {self.threads}; give at most {MOST_THREADS}.", "threads")
        if len(self.adapter_folders) < len(self.adapter):
            raise InvalidRequest("--adapter names an adapter twice; give each a name of its own.", "adapter")

    @property
    def adapter_folders(self) -> dict[str, str]:
        """Name -> folder of each adapter. Raises InvalidRequest for one that is not NAME=FOLDER."""
        folders: dict[str, str] = {}
        for text in self.adapter:
            name, equals, folder = text.partition("=")
            if not (name and equals and folder):
                raise InvalidRequest(f"--adapter is {text!r}; give NAME=FOLDER.", "adapter")
            folders[name] = folder
        return folders


MOST_THREADS = 256
