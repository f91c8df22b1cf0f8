"""`headrace probe`: a scorer that is trained on the attempts of earlier evaluations."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.show import note, print_json, progress_counts
from headrace.spec.errors import InvalidRequest, UnsupportedModel
from headrace.spec.options import EngineOptions

if TYPE_CHECKING:
    from headrace.engine.surface import Surface
    from headrace.reason.evaluation.states import Examples
    from headrace.reason.evaluation.store import Sample, Store
    from headrace.reason.tasks.item import Item

Name = Annotated[str, typer.Argument(help="Of the new probe, or the path of a folder for it.")]
Stores = Annotated[list[Path], typer.Option("--store", help="Attempts to learn from; may be repeated.")]
Apart = Annotated[
    list[Path], typer.Option(help="A store of an evaluation, whose questions are left out; may be repeated.")
]
State = Annotated[str, typer.Option(help="What it reads: hidden:-1, the last layer, or hidden:I.")]
Width = Annotated[int, typer.Option(min=0, help="Units of a hidden layer of the head; 0: none.")]
Seed = Annotated[int, typer.Option(callback=g.seed_in_range, help="Of the training.")]


@with_flags(options=EngineOptions)
def probe(
    name: Name,
    store: Stores,
    apart: Apart = [],  # noqa: B006
    model: g.ModelName = g.DEFAULT_MODEL,
    state: State = "hidden:-1",
    width: Width = 32,
    seed: Seed = 0,
    json: g.Json = False,
    options: EngineOptions = EngineOptions(),
) -> None:
    """Train a scorer on stored attempts; use it with --scorer 'probe(NAME)'."""
    from importlib.util import find_spec

    from headrace.reason.evaluation.probing import questions, recipe_of, train_probe
    from headrace.reason.evaluation.store import Store
    from headrace.reason.scorers import probe_folder

    if find_spec("torch") is None:
        raise UnsupportedModel("A probe is trained with torch; install it with: pip install 'headrace[torch]'.")
    folder = probe_folder(name)
    if folder.exists():
        raise InvalidRequest(f"{folder} is there already; give another name, or remove it.", "name")
    stores = [Store.load(path) for path in store]
    evaluated = [item for path in apart for item in questions(Store.load(path)).values()]
    with g.loaded_engine(model, options, quiet=json) as engine:
        examples = read(engine, stores, evaluated, state, quiet=json)
        recipe = recipe_of(examples, engine.model_name, state, width, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    figures = train_probe(examples, recipe, folder, [item.id for item in evaluated])
    show(folder, figures, json)


def read(engine: Surface, stores: list[Store], evaluated: list[Item], state: str, quiet: bool) -> Examples:
    """Raises InvalidRequest for a store of another model, and for too few attempts, before a state is read."""
    from headrace.reason.evaluation.probing import check_enough
    from headrace.reason.evaluation.states import Examples, read_examples

    chosen = learned_from(stores, evaluated, engine.model_name)
    check_enough(sample for _, samples in chosen for sample in samples)
    found = []
    for asked, samples in chosen:
        with progress_counts(quiet) as report:
            found.append(asyncio.run(read_examples(engine, asked, samples, state, report=report)))
    return Examples.joined(found)


def learned_from(stores: list[Store], evaluated: list[Item], ours: str) -> list[tuple[dict[str, Item], list[Sample]]]:
    """Of each store its questions that are not evaluated on, by id, and what can be read of the attempts at them."""
    from headrace.reason.evaluation.probing import apart, pool_of, questions
    from headrace.reason.evaluation.states import readable

    found = []
    for one in stores:
        theirs = one.settings["model"]
        if theirs != ours:
            told = f"{one.path} has attempts of {theirs} and this is {ours}; name that model behind the probe's name."
            raise InvalidRequest(told, "store")
        asked = questions(one)
        kept = apart(asked, evaluated)
        if len(kept) < len(asked):
            note(f"{len(asked) - len(kept)} questions of {one.path} are evaluated on and left out.")
        found.append((kept, [sample for sample in readable(pool_of(one)) if sample.item in kept]))
    return [(kept, samples) for kept, samples in found if samples]


def show(folder: Path, figures: dict[str, Any], json: bool) -> None:
    if json:
        print_json({"folder": str(folder)} | figures)
        return
    for part, what in (("end", "at the end of an attempt"), ("half", "half-way")):
        found = figures[part]
        low, high = found["interval"]
        told = f"AUC {found['auc']:.3f} [{low:.3f}, {high:.3f}] over {found['attempts']} attempts"
        note(f"{what}: {told} of questions it had not seen")
    note(f"The probe is in {folder}.")
