"""The section of docs/privacy.md about what a veil costs, from benchmarks/results/veil_exactness.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from page_parts import OPEN, table

RESULTS = Path(__file__).resolve().parent / "results" / "veil_exactness.json"
MODELS = {"plain": "plain", "untied": "plain, with a head of its own", "veiled": "veiled"}

HEADER = """
## What it costs

A model's values written out in fp32 twice, as they are and veiled; a server process has the veiled folder alone, the
proxy holds the key, and what it answers is held against the plain model's answers, at temperature 0.

"""
SPEED = """
Speed as a share of the plain model's in the same weight type on the same backend, the three in alternation: medians
over rounds, in brackets the 95 % interval of the mean. A head that was tied to the embedding becomes a table of its
own under a veil; the middle column is what that alone costs.

"""
ROUNDING = """
Quantised after the transform: how far each weight type is from the plain model in fp32, over windows of 512 tokens of
{text}. KL in nats a token, with its standard error; top-1 is how often both name the same token.

"""
MET_AGAIN = """
The file itself is in {types}, and int4 stores what Q4_1 does: it meets the plain model's own values again and hardly
rounds them. The veiled values lie on no such grid, so int4's two figures say what is lost of this file, not what a
veil loses of a model published in float.
"""
DONE = """
Run it again, or go on where it stopped: `python benchmarks/veil_exactness.py`, then `python benchmarks/veil_page.py`.
{done} of {cells} cells are done, on {model}; the machine was {machine}.
"""


def section(path: Path = RESULTS) -> str:
    """As Markdown; without a result it says that nothing was measured."""
    if not path.exists():
        return HEADER + f"This was {OPEN}: `python benchmarks/veil_exactness.py`.\n"
    return written(json.loads(path.read_text(encoding="utf-8")))


def written(found: dict[str, Any]) -> str:
    parts = found["summary"]
    text = HEADER + (answers(parts["answers"]) if "answers" in parts else f"Answers: {OPEN}.\n")
    text += SPEED + (speed(parts["throughput"], found["bytes"]) if "throughput" in parts else f"{OPEN}\n")
    text += ROUNDING.format(text=found["text"])
    text += rounding(parts["quantised"]) if "quantised" in parts else f"{OPEN}\n"
    if "Q4_1" in found["types"]:
        text += MET_AGAIN.format(types=", ".join(found["types"]))
    about = {name: found[name] for name in ("done", "cells", "model")}
    return text + DONE.format(**about, machine=found["machine"]["hardware"])


def answers(found: dict[str, Any]) -> str:
    lines = [
        f"- {found['same_text']} of {found['prompts']} texts are the plain model's letter for letter, "
        f"of {found['tokens']:,} tokens together.",
        f"- {found['wrong']} differ where the plain model's two likeliest logits are more than 0.001 apart.",
        *(f"- Prompt {each['prompt']} differs from token {each['at']} on, where they are {each['margin']:.1e} apart."
          for each in found["diverging"]),
        f"- No logit differs by more than {found['apart']:.1e}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def speed(found: dict[str, Any], sizes: dict[str, int]) -> str:
    head = ["weights", "decode: veiled", "a head of its own alone", "prefill: veiled", "plain, tokens/s", "rounds"]
    rows = []
    for weights, each in found.items():
        decode, prefill = each["decode"], each["prefill"]
        ratios = [decode["veiled/plain"], decode["untied/plain"], prefill["veiled/plain"]]
        rows.append([weights, *map(_ratio, ratios), f"{decode['plain']:.1f}", str(each["rounds"])])
    stored = [f"{name} {sizes[f'{name}-bf16'] / 1e6:.0f} MB" for name in MODELS if f"{name}-bf16" in sizes]
    return table(head, rows) + (f"\nStored in bf16: {', '.join(stored)}.\n" if stored else "")


def _ratio(found: dict[str, Any]) -> str:
    low_high = found["interval"]
    return f"{found['median']:.3f}" + (f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else "")


def rounding(found: Sequence[dict[str, Any]]) -> str:
    rows = []
    for each in found:
        error = f" ± {each['mean_kl_error']:.1e}" if each["mean_kl_error"] is not None else ""
        kl, top = f"{each['mean_kl']:.2e}{error}", f"{each['top1_agreement']:.2%}"
        rows.append([each["weights"], MODELS[each["model"]], kl, top, f"{each['tokens']:,}"])
    return table(["weights", "model", "KL", "top-1", "tokens"], rows)
