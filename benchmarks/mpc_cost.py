"""What computation on secret shares costs a model, beside the same model in plain numbers on the native backend.

    python benchmarks/mpc_cost.py [--model smollm2-135m] [--tokens 16] [--quick] [--output FILE]

A pass over a prompt by each protocol's parties, all on this machine: seconds, bytes, messages and rounds by part, and
how many times slower than the engine's prefill of the same tokens. Its lines go into `headrace privacy report`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from headrace import Engine
from headrace.cli.machine import measured_on
from headrace.evidence.machine import commit_of, today
from headrace.model.catalogue import resolve
from headrace.model.loading import LoadedModel, load_model
from headrace.privacy.mpc import approximations, price
from headrace.privacy.mpc.environment import PACKAGES, make_worker
from headrace.privacy.mpc.inference import SecretDecoder
from headrace.privacy.mpc.session import Kind, Session, Setup
from headrace.privacy.mpc.weights import Prepared, for_shares, plain_logits, shape_of
from headrace.reason.tasks.fixtures import fixture
from headrace.spec.errors import HeadraceError
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions

ROOT = Path(__file__).resolve().parents[1]
KINDS: tuple[Kind, ...] = ("aby3", "semi2k")
ATTACK = "none was run"


def plain_seconds(path: Path, tokens: list[int], rounds: int = 5) -> float:
    """Median seconds a token of the engine's prefill, one thread, no cache."""
    found = []
    with Engine.load(str(path), options=EngineOptions(threads=1, prefix_cache=False)) as engine:
        for _ in range(rounds):
            sequence, began = engine.open_now(tokens[:1]), time.perf_counter()
            sequence.score([tokens[1:]]).result()
            found.append((time.perf_counter() - began) / (len(tokens) - 1))
            sequence.drop()
    return statistics.median(found)


def measure(session: Session, loaded: LoadedModel, kind: Kind, tokens: list[int], plain: float) -> dict[str, Any]:
    shape, exact = shape_of(loaded.spec, len(tokens)), approximations.exact()
    weights = for_shares(loaded, shape)
    session.open(Setup(kind))
    decoder = SecretDecoder(session, weights, shape, keep=False)
    ours = decoder.logits(tokens, rows=1)[0]
    wanted = plain_logits(Prepared(loaded, shape), shape, exact, tokens)[-1]
    parts = price.forward(price.PROTOCOLS[kind], shape, weights.calm, rows=1)
    spent, formula = decoder.spent, price.total(parts.values())
    return {"protocol": kind, "seconds": spent.seconds, "slowdown": spent.seconds / len(tokens) / plain,
            "bytes": spent.bytes, "messages": spent.messages, "peak_bytes": spent.peak, "formula": asdict(formula),
            "by_part": {name: asdict(cost) for name, cost in parts.items()},
            "logit_error": float(np.abs(ours - wanted).max()),
            "same_token": bool(ours.argmax() == wanted.argmax())}  # fmt: skip


def report_lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"profile": f"mpc:{row['protocol']}", "slowdown": row["slowdown"], "recovery": None, "attack": ATTACK}
            for row in rows]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m", help="llama-shaped, or lm-t-small for the one trained here")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="lm-t-small, 8 tokens, two parties")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "mpc_cost.json")
    arguments = parser.parse_args()
    name, count = ("lm-t-small", 8) if arguments.quick else (arguments.model, arguments.tokens)
    try:
        path = fixture(name) if name.startswith("lm-t") else resolve(name)
        loaded = load_model(path, Ledger())
        tokens = [number % loaded.spec.vocab for number in range(7, 7 + count)]
        plain = plain_seconds(path, tokens)
        with Session(make_worker(print)) as session:
            rows = []
            for kind in KINDS[1:] if arguments.quick else KINDS:
                rows.append(measure(session, loaded, kind, tokens, plain))
                print({name: value for name, value in rows[-1].items() if name != "by_part"}, flush=True)
    except HeadraceError as error:
        sys.exit(str(error))
    found = {"kind": "cost of secret shares", "model": loaded.name, "tokens": count, "plain_seconds": plain,
             "machine": measured_on(), "packages": PACKAGES, "date": today(), "commit": commit_of(ROOT),
             "privacy_report": report_lines(rows), "rows": rows}  # fmt: skip
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"Kept in {arguments.output}.")


if __name__ == "__main__":
    main()
