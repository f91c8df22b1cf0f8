"""How often the LM-T fixtures are right, by family and number of steps, through the real engine.

    python benchmarks/lm_t.py --count 100 --output benchmarks/results/lm-t.json

A fixture that is not in the cache is trained first. Every cell asks `count` questions of the `eval` split once.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np

from headrace.adapt.head import auc
from headrace.engine.engine import Engine
from headrace.engine.llm import LLM
from headrace.evidence.machine import commit_of, describe_machine, today
from headrace.model.folder import read_folder, read_json
from headrace.reason.intervals import wilson
from headrace.reason.tasks.arith import CHECK, DIALS, VERDICTS, Family, Problem, answer_of, marks, problems
from headrace.reason.tasks.fixtures import fixture, fixture_names, fixture_recipe
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

STEPS = (3, 4, 5, 6)
CELLS: list[tuple[Family, int, int]] = [
    *((family, steps, 9) for family in get_args(Family) for steps in STEPS),
    *((family, *DIALS[family]) for family in get_args(Family) if DIALS[family][1] != 9),
    ("sums", 6, 11),
]
"""Family, steps, largest number."""
TEMPERATURES = (1.0, 0.8)
LONGEST = Stop(tokens=160)


def measure(name: str, count: int, threads: int) -> dict[str, Any]:
    """Everything about one fixture."""
    folder = fixture(name)
    parameters = sum(math.prod(tensor.shape) for tensor in read_folder(folder).tensors.values())
    print(f"{name}: {parameters:,} parameters, trained in {read_json(folder / 'training.json')}")
    with LLM(folder, EngineOptions(threads=threads)) as llm:
        cells = [
            cell(llm, family, steps, largest, temperature, count)
            for temperature in TEMPERATURES
            for family, steps, largest in CELLS
        ]
        numerics = llm.engine.guarantees.profile
    return {
        "fixture": name,
        "parameters": parameters,
        "recipe": read_json(folder / "recipe.json"),
        "training": read_json(folder / "training.json"),
        "numerics": numerics,
        "cells": cells,
    }


def cell(llm: LLM, family: Family, steps: int, largest: int, temperature: float, count: int) -> dict[str, Any]:
    """Answers right, solutions right in every line, and how well the model's own verdict tells right from wrong."""
    asked = problems(family, steps, count, largest=largest)
    done = llm.generate([p.question for p in asked], Sampling(temperature=temperature), LONGEST, seed=1)
    texts = [completion.text for completion in done]
    right = [answer_of(text) == p.answer for p, text in zip(asked, texts, strict=True)]
    whole = [len(m := marks(p, text)) > steps and all(m) for p, text in zip(asked, texts, strict=True)]
    low, high = wilson(sum(right), count)
    found = {
        "family": family,
        "steps": steps,
        "largest": largest,
        "temperature": temperature,
        "questions": count,
        "right": sum(right) / count,
        "interval": [low, high],
        "every_line_right": sum(whole) / count,
        "no_answer": sum(answer_of(text) is None for text in texts) / count,
        "verdict_auc": auc(verdicts(llm.engine, asked, texts), np.array(right)),
    }
    print(
        f"  T={temperature:.1f} {family:5} {steps} steps to {largest:2}: {found['right']:.2f} [{low:.2f}, {high:.2f}],"
        f" every line {found['every_line_right']:.2f}, verdict AUC {found['verdict_auc']:.2f}",
        flush=True,
    )
    return found


def verdicts(engine: Engine, asked: list[Problem], texts: list[str]) -> np.ndarray:
    """The model's log-odds of "yes" over "no" when asked whether its solution is right."""
    found = []
    for problem, text in zip(asked, texts, strict=True):
        with engine.open_now(f"{problem.question}{text}\n{CHECK}") as sequence:
            (yes,), (no,) = sequence.score(VERDICTS).result()
        found.append(yes - no)
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = [name for name in fixture_names() if fixture_recipe(name).lessons.name == "arith"]
    parser.add_argument("names", nargs="*", default=known, help="fixtures (default: all of LM-T)")
    parser.add_argument("--count", type=int, default=100, help="questions a cell")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    found = {
        "date": today(),
        "commit": commit_of(Path(__file__).parents[1]),
        "machine": describe_machine(),
        "fixtures": [measure(name, options.count, options.threads) for name in options.names],
    }
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
