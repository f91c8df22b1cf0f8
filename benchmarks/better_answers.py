"""The studies of docs/results.md: which strategies give better answers for the same tokens, and which do not.

    python benchmarks/better_answers.py lm-t-sums
    python benchmarks/better_answers.py lm-t-sums --again
    python benchmarks/better_answers.py --list
    python benchmarks/better_answers.py --page

Studies are written down in better_answers.toml. Each keeps its samples in a file of its own and goes on where it was
stopped; its figures go to results/better_answers/NAME.json, its chart to docs/figures/NAME.svg, and the page is made
anew from the figures alone. With --again the figures are made anew from the samples that are there, and no model is
loaded. With --trial a few questions are asked and nothing is written.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.cli.evaluate import scorer_of
from headrace.cli.generation import loaded_engine
from headrace.cli.show import note, print_table, progress_counts
from headrace.evidence.machine import commit_of, describe_machine, today
from headrace.model.catalogue import cache_folder
from headrace.reason.evaluate import Design, settings
from headrace.reason.evaluation.probing import FIGURES
from headrace.reason.evaluation.report import COLUMNS, cells
from headrace.reason.evaluation.results_page import figure, page
from headrace.reason.evaluation.store import Store
from headrace.reason.evaluation.study import Study, carried_out, how_of, read_studies, recomputed, shortened
from headrace.reason.scorers import probe_folder
from headrace.reason.tasks.fixtures import fixture, fixture_names
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.registry import items
from headrace.spec.options import EngineOptions

HERE = Path(__file__).parent
ROOT = HERE.parent
STUDIES = HERE / "better_answers.toml"
RESULTS = HERE / "results" / "better_answers"
CHARTS = ROOT / "docs" / "figures"
PAGE = ROOT / "docs" / "results.md"


def run(study: Study, asked: Sequence[Item], path: Path | None) -> dict[str, Any]:
    """The study's figures; its samples are kept in `path`."""
    scorer = scorer_of(study.scorer or None, asked, study.seed)
    how, design = how_of(study, scorer), Design(asked, ("single",))
    model = str(fixture(study.model)) if study.model in fixture_names() else study.model
    options = msgspec.convert(study.engine, EngineOptions)
    began, work = time.perf_counter(), time.process_time()
    with loaded_engine(model, options) as engine:
        belongs = settings(engine, study.task, how, design)
        with Store(path, belongs) as kept, progress_counts() as report:
            found = asyncio.run(carried_out(engine, study, asked, scorer, kept, report))
    note(f"{study.name}: {time.perf_counter() - began:.0f} s, {time.process_time() - work:.0f} s of processor time")
    return found


def again(study: Study, asked: Sequence[Item], path: Path) -> dict[str, Any]:
    """The study's figures from samples that are all there."""
    return recomputed(study, asked, scorer_of(study.scorer or None, asked, study.seed), Store.load(path))


def write(study: Study, found: dict[str, Any], path: Path, others: Sequence[Study], anew: bool) -> None:
    """Figures with all that they depend on, and the chart. `anew`: of samples that an earlier run has drawn."""
    result, now = RESULTS / f"{study.name}.json", {"date": today(), "commit": commit_of(ROOT)}
    drawn = {**now, "machine": describe_machine()}
    if anew:
        before = json.loads(result.read_text(encoding="utf-8"))
        drawn = {name: before[name] for name in drawn} | {"again": now}
    told = {
        "study": msgspec.to_builtins(study),
        **drawn,
        "store": {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        **({"probe": held_out(study)} if study.scorer.startswith("probe(") else {}),
        **({"shared": shared(study, others)} if study.kind == "baseline" else {}),
        "figures": found,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if study.kind == "comparison":
        CHARTS.mkdir(parents=True, exist_ok=True)
        (CHARTS / f"{study.name}.svg").write_text(figure(told), encoding="utf-8")
    note(f"Written: {RESULTS / study.name}.json")


def held_out(study: Study) -> dict[str, Any]:
    """What the study's probe learned from, and what it said of questions it had not seen."""
    name = study.scorer.removeprefix("probe(").removesuffix(")")
    return dict(json.loads((probe_folder(name) / FIGURES).read_text(encoding="utf-8")))


def shared(study: Study, others: Sequence[Study]) -> dict[str, int]:
    """How many of a baseline's questions, by their text, the studies of its task ask as well."""
    ours = {item.task.question for item in items(study.task, study.questions, study.seed)}
    found = {
        one.name: len(ours & {item.task.question for item in items(one.task, one.questions, one.seed)})
        for one in others
        if one.kind == "comparison" and (one.task, one.model) == (study.task, study.model)
    }
    return {name: count for name, count in found.items() if count}


def write_page() -> None:
    told = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.write_text(page(told), encoding="utf-8")


def store_path(study: Study, folder: Path) -> Path:
    return folder / f"{study.store or study.name}.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies to run, one after the other")
    parser.add_argument("--list", action="store_true", help="only show the studies")
    parser.add_argument("--again", action="store_true", help="make figures anew from the samples that are there")
    parser.add_argument("--page", action="store_true", help="only make the page anew from the figures")
    parser.add_argument("--trial", type=int, default=0, metavar="N", help="ask N questions and write nothing")
    parser.add_argument("--stores", type=Path, help="folder of the samples (default: in the cache)")
    options = parser.parse_args()
    studies = {study.name: study for study in read_studies(STUDIES)}
    if unknown := set(options.names) - studies.keys():
        parser.error(f"no such study: {', '.join(sorted(unknown))}; --list shows them")
    if options.list or not (options.names or options.page):
        rows = [(one.name, one.kind, one.model, one.task, str(one.questions)) for one in studies.values()]
        print_table(("name", "kind", "model", "task", "questions"), rows)
        return
    for study in (studies[name] for name in options.names):
        asked = shortened(items(study.task, options.trial or study.questions, study.seed), study.max_tokens)
        if options.trial:
            print_table(COLUMNS, cells(run(study, asked, None)["rows"]))
            continue
        path = store_path(study, options.stores or cache_folder() / "eval")
        found = again(study, asked, path) if options.again else run(study, asked, path)
        write(study, found, path, list(studies.values()), options.again)
    if not options.trial:
        write_page()


if __name__ == "__main__":
    main()
