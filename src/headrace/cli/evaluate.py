"""`headrace eval`: strategies and budgets compared on a task with known answers."""

from __future__ import annotations

import asyncio
import hashlib
import json as jsonlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.show import note, print_json, print_table, progress_counts
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.engine.surface import Surface
    from headrace.reason.evaluate import Design
    from headrace.reason.evaluation.filling import How
    from headrace.reason.tasks.item import Item
    from headrace.spec.reasoning import Scorer

TaskName = Annotated[
    str,
    typer.Option(
        "--task",
        "-t",
        help="gsm8k, lettered, worlds, arith:FAMILY(steps=N), gym:FAMILY(setting=value), sets:FAMILY, reader:FAMILY.",
    ),
]
DEFAULT_STRATEGIES = ("single", "self_consistency(n=8)")
Strategies = Annotated[
    list[str],
    typer.Option(
        "--strategy",
        "-s",
        show_default=" and ".join(DEFAULT_STRATEGIES),
        help="See `headrace strategies`; may be repeated.",
    ),
]
Budgets = Annotated[
    list[str], typer.Option("--budget", "-b", help="Bounds, like '400 tok'; may be repeated; none if omitted.")
]
Questions = Annotated[int, typer.Option(min=1, help="How many questions of the task.")]
Samples = Annotated[int, typer.Option(min=0, help="Attempts a question in the pool; 0: what the strategies need.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs a question of a strategy that no pool can serve.")]
Seed = Annotated[int, typer.Option(callback=g.seed_in_range, help="Of questions and draws.")]
ScorerName = Annotated[
    str | None,
    typer.Option("--scorer", help="What scores attempts: judge, arith_judge, probe(NAME or FOLDER), oracle(NOISE)."),
]
Temperature = Annotated[float, typer.Option(help="Of every draw.")]
MostTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest attempt (default: the task's).")]
Concurrency = Annotated[int, typer.Option(min=1, help="Questions at the same time; no result depends on it.")]
StorePath = Annotated[Path | None, typer.Option("--store", help="Samples, one JSON line each (default: in the cache).")]
Output = Annotated[Path | None, typer.Option(help="Write eval.md, eval.json and eval.svg into this folder.")]


@with_flags(options=EngineOptions)
def evaluate(
    task: TaskName,
    model: g.ModelName = g.DEFAULT_MODEL,
    strategy: Strategies = [],  # noqa: B006
    budget: Budgets = [],  # noqa: B006
    questions: Questions = 50,
    samples: Samples = 0,
    repeats: Repeats = 1,
    seed: Seed = 0,
    scorer: ScorerName = None,
    temperature: Temperature = 0.8,
    max_tokens: MostTokens = None,
    concurrency: Concurrency = 16,
    store: StorePath = None,
    output: Output = None,
    json: g.Json = False,
    options: EngineOptions = EngineOptions(),
) -> None:
    """Compare strategies on a task: accuracy against cost, with intervals. Goes on where it was stopped."""
    from headrace.reason.evaluate import Design, checked
    from headrace.reason.evaluation.filling import How
    from headrace.reason.tasks.registry import items
    from headrace.spec.budget import Budget
    from headrace.spec.sampling import Sampling

    check_output(output)
    budgets = tuple(map(Budget.parse, dict.fromkeys(budget))) or (Budget(),)
    asked = shortened(items(task, questions, seed), max_tokens)
    design = Design(asked, tuple(strategy) or DEFAULT_STRATEGIES, budgets, samples, repeats)
    how = How(seed, Sampling(temperature=temperature), scorer_of(scorer, asked, seed), concurrency)
    checked(design, how)
    with g.loaded_engine(model, options, quiet=json) as engine:
        figures = carried_out(engine, task, design, how, store, quiet=json)
    if output is not None:
        write(figures, output)
    show(figures, json)


def check_output(folder: Path | None) -> None:
    if folder is not None and folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"--output {folder} is a file; give the path of a folder.", "output")


def shortened(asked: Sequence[Item], tokens: int | None) -> list[Item]:
    from dataclasses import replace

    if tokens is None:
        return list(asked)
    return [replace(one, task=replace(one.task, ending=replace(one.task.ending, tokens=tokens))) for one in asked]


def scorer_of(name: str | None, asked: Sequence[Item], seed: int) -> Scorer | None:
    from headrace.reason.evaluate import oracle_scorer
    from headrace.reason.scorers import scorer_named

    if name is None:
        return None
    if name == "arith_judge":
        from headrace.reason.tasks.arith_task import ArithJudge

        return ArithJudge()
    oracle = re.fullmatch(r"oracle(?:\((?:noise=)?([0-9.]+)\))?", name)
    return oracle_scorer(asked, float(oracle[1] or 0), seed) if oracle else scorer_named(name, folders=True)


def carried_out(engine: Surface, task: str, design: Design, how: How, path: Path | None, quiet: bool) -> dict[str, Any]:
    from headrace.reason.evaluate import evaluate as evaluated
    from headrace.reason.evaluate import settings
    from headrace.reason.evaluation.store import Store

    belongs = settings(engine, task, how, design)
    path = path or default_store(belongs)
    with Store(path, belongs) as kept, progress_counts(quiet) as report:
        if not quiet:
            note(f"Samples are kept in {path}; {len(kept.samples)} are there already.")
        try:
            return asyncio.run(evaluated(engine, design, how, kept, report))
        except KeyboardInterrupt:
            note(f"Interrupted: {len(kept.samples)} samples are kept; the same command goes on from there.")
            raise


def default_store(belongs: dict[str, Any]) -> Path:
    from headrace.model.catalogue import cache_folder

    digest = hashlib.sha256(jsonlib.dumps(belongs, sort_keys=True).encode()).hexdigest()[:10]
    name = re.sub(r"[^\w.-]+", "-", f"{belongs['task']}-{belongs['model']}").strip("-")
    return cache_folder() / "eval" / f"{name}-{digest}.jsonl"


def write(figures: dict[str, Any], folder: Path) -> None:
    from headrace.reason.evaluation.chart import chart
    from headrace.reason.evaluation.report import markdown

    folder.mkdir(parents=True, exist_ok=True)
    title = f"{figures['settings']['task']} with {figures['settings']['model']}"
    (folder / "eval.json").write_text(jsonlib.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "eval.svg").write_text(chart(figures["rows"], title), encoding="utf-8")
    (folder / "eval.md").write_text(markdown(figures, "eval.svg"), encoding="utf-8")


def show(figures: dict[str, Any], json: bool) -> None:
    from headrace.reason.evaluation.report import COLUMNS, cells, comparison_cells, curve_cells, scorer_line, sentence

    if json:
        print_json(figures)
        return
    print_table(COLUMNS, cells(figures["rows"]))
    if figures["oracle"]:
        note("Oracle runs, whose scorer knows what is right:")
        print_table(COLUMNS, cells(figures["oracle"]))
    if figures["comparisons"]:
        note(f"Against {figures['baseline']}:")
        print_table(*comparison_cells(figures["comparisons"]))
        note(sentence(figures))
    if figures["pool"] is not None:
        print_table(*curve_cells(figures["pool"]["curves"]))
        note(scorer_line(figures["pool"]))
