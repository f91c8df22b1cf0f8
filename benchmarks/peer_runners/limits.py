"""The machine's measured limits, and what they allow a cell.

decode:  tokens/s ≤ batch / max(bytes / bandwidth, operations / peak), of one step;
prefill: tokens/s ≤ tokens / (operations / peak).

bytes: all weights of the file once (an embedding that is not also the head is left out), plus the keys and values
of every row's context at the middle of the cell, in 2 bytes a number. operations: two for each weight and token
(in prefill the head counts for last tokens alone), plus four for each query channel and position attended to.
bandwidth: the best sequential read over a working set of at least these bytes. peak: the best rate of multiply-adds
in registers, int8 where the processor has instructions for it. Both on the threads that the engines get.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

from peer_runners.protocol import Cell

SOURCE = Path(__file__).with_name("limits.c")
KV_BYTES = 2


@dataclass(frozen=True)
class Geometry:
    """Of a decoder. `body`, `head`: weights; `key_values`: numbers a token keeps; `queries`: channels of all layers."""

    weight_bytes: int
    body: int
    head: int
    key_values: int
    queries: int
    vocab: int


def geometry(gguf: Path) -> Geometry:
    reader = GGUFReader(gguf)
    arch = reader.fields["general.architecture"].contents()

    def number(name: str) -> int:
        return int(reader.fields[f"{arch}.{name}"].contents())

    matrices = [t for t in reader.tensors if len(t.shape) == 2]
    tied = not any(t.name == "output.weight" for t in matrices)
    embedding = next(t for t in matrices if t.name == "token_embd.weight")
    head = embedding if tied else next(t for t in matrices if t.name == "output.weight")
    body = [t for t in matrices if t.name not in ("token_embd.weight", "output.weight")]
    heads, layers = number("attention.head_count"), number("block_count")
    size = number("embedding_length") // heads
    return Geometry(
        weight_bytes=int(sum(t.n_bytes for t in [*body, head])),
        body=int(sum(np.prod(t.shape) for t in body)),
        head=int(np.prod(head.shape)),
        key_values=2 * layers * number("attention.head_count_kv") * size,
        queries=layers * heads * size,
        vocab=int(head.shape[1]),
    )


def probe(cache: Path, threads: int) -> dict[str, Any]:
    """Compiles and runs the probe. Returns {"read": {MiB: bytes/s}, "operations": {kind: 1/s}}."""
    program = cache / "limits"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        compile_it = ["cc", "-O3", "-march=native", "-pthread", str(SOURCE), "-o", str(program)]
        subprocess.run(compile_it, check=True)
    lines = subprocess.run([str(program), str(threads)], check=True, capture_output=True, text=True).stdout.split("\n")
    words = [line.split() for line in lines if line]
    reads = {kind: float(rate) * 1e9 for what, kind, rate in words if what == "READ"}
    return {"read": reads, "operations": {kind: float(rate) for what, kind, rate in words if what == "OPS"}}


def limit(cell: Cell, model: Geometry, measured: dict[str, Any]) -> float | None:
    """Tokens a second that no engine could pass with these weights; None for what is not a throughput."""
    peak = max(measured["operations"].values())
    if cell.measure == "decode":
        context = cell.prompt + cell.new / 2
        size = model.weight_bytes + cell.batch * context * model.key_values * KV_BYTES
        work = cell.batch * (2 * (model.body + model.head) + 4 * context * model.queries)
        return cell.batch / max(size / bandwidth(size, measured["read"]), work / peak)
    if cell.measure == "prefill":
        tokens = cell.batch * cell.prompt
        work = 2 * model.body * tokens + 2 * model.head * cell.batch + 2 * tokens * cell.prompt * model.queries
        return tokens / (work / peak)
    return None


def bandwidth(size: float, reads: dict[str, float]) -> float:
    """Of the smallest working set measured that is no smaller than `size` bytes, else of the largest."""
    enough = [int(mib) for mib in reads if int(mib) * 2**20 >= size]
    return reads[str(min(enough) if enough else max(map(int, reads)))]
