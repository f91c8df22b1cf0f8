"""Writes docs/forks.md from results/kv_sharing.json: what owned forks save a step beam.

python benchmarks/kv_sharing_page.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE / "results" / "kv_sharing.json"
PAGE = HERE.parent / "docs" / "forks.md"
WAYS = {
    "cache_off": ("sent again, prefix cache off", "N (T P + S T (T − 1) / 2)"),
    "cache_on": ("sent again, prefix cache on", "P + (N − 1) r(P) + N Σ r(P + t S), t = 1 … T − 1"),
}
FORKS = "P + N T"
NAMES = {"vllm": "vLLM"}

HEAD = """# What forks save

<!-- Generated: python benchmarks/kv_sharing_page.py -->

A step beam on {model}: a prompt of {prompt} tokens, {steps} steps of {step_tokens} tokens, N beams, of which the best
N / {expand} go on with {expand} children each. A fork shares its parent's pages, so a step computes nothing of
the past again but one token a beam. The other way, which any completion server forces, is to send every prefix anew:
with the prefix cache off all of it is computed again, with it on what does not fill a page of 16.

## Prefill, seconds and pages over those of forks

In alternation, {rounds} rounds, {threads} threads, {machine}, at `{commit}`; median, in brackets the range. Prefill is
counted by the engine and has to equal the formula, or the benchmark stops. Pages are the most in use at a time.

| beams | way | prefill tokens | over forks | seconds over forks | pages over forks |
| ---: | --- | ---: | ---: | ---: | ---: |
"""
FORMULAS = """
P tokens of prompt, T steps of S tokens, N beams; of a prompt's n tokens r(n) = n − 16 ⌊(n − 1) / 16⌋ fill no page:

| way | prefill tokens |
| --- | --- |
| forks | {forks} |
| sent again, prefix cache off | {cache_off} |
| sent again, prefix cache on | {cache_on} |
"""
PEER = """
## Through a peer's server

The same beam as a user of {name} runs it, one completion request a beam and step with token ids, against ours by forks
in this process, in alternation. Its weights are the same file dequantised to bf16, its version and flags
`{version}`. Seconds; above 1 ours is quicker:

| beams | ours, seconds | theirs, seconds | theirs over ours |
| ---: | ---: | ---: | ---: |
"""


def page(result: dict[str, Any]) -> str:
    """The page for one result file."""
    rows = [line for row in result["rows"] for line in lines_of(row)]
    rounds = min(len(row["rounds"]) for row in result["rows"])
    text = HEAD.format(**result | {"rounds": rounds, "model": result["model"]}) + "\n".join(rows) + "\n"
    text += FORMULAS.format(forks=FORKS, **{way: formula for way, (_, formula) in WAYS.items()})
    if peer := result.get("peer"):
        text += (
            PEER.format(**peer | {"name": NAMES[peer["name"]]})
            + "\n".join(peer_line(row) for row in peer["rows"])
            + "\n"
        )
    return text


def lines_of(row: dict[str, Any]) -> list[str]:
    """One for forks with its own figures, one for each other way with ratios."""
    forks = [one["forks"] for one in row["rounds"]]
    seconds = told([one["seconds"] for one in forks], " s")
    first = f"| {row['beams']} | forks | {forks[0]['prefill']:,} | 1 | {seconds} | {forks[0]['pages']:,} pages |"
    rest = []
    for way, (name, _) in WAYS.items():
        prefill = row["rounds"][0][way]["prefill"]
        ratios = {what: bounds(row[way][what]) for what in ("seconds", "pages")}
        over = f"{row[way]['prefill']['median']:.3g}"
        rest.append(f"| {row['beams']} | {name} | {prefill:,} | {over} | {ratios['seconds']} | {ratios['pages']} |")
    return [first, *rest]


def peer_line(row: dict[str, Any]) -> str:
    ours, theirs = (told([pair[side] for pair in row["pairs"]], "") for side in ("ours", "theirs"))
    return f"| {row['beams']} | {ours} | {theirs} | {bounds(row['ratio'])} |"


def told(values: Sequence[float], unit: str) -> str:
    ordered = sorted(values)
    return bounds({"low": ordered[0], "median": ordered[len(ordered) // 2], "high": ordered[-1]}, unit)


def bounds(found: dict[str, float], unit: str = "") -> str:
    low, median, high = (f"{found[name]:.3g}" for name in ("low", "median", "high"))
    return f"{median}{unit}" if low == high else f"{median}{unit} [{low}, {high}]"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")
