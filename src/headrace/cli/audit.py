"""`headrace audit`: what a model or adapter gives away of the documents it was trained on."""

from __future__ import annotations

import json as js
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.show import note, print_json, print_table, progress_bars, progress_counts
from headrace.spec.errors import InvalidRequest, UnsupportedModel
from headrace.spec.options import EngineOptions

if TYPE_CHECKING:
    from headrace.engine.surface import Surface
    from headrace.privacy.audit.audit import Subject
    from headrace.privacy.audit.report import Report

EXIT_FAILED = 1
app = typer.Typer(help="Find out what a model or adapter gives away of its training documents.", no_args_is_help=True)

Members = Annotated[Path, typer.Option(help="Documents it was trained on: .jsonl with `text`, else one a line.")]
HeldOut = Annotated[Path, typer.Option(help="At least 100 documents of the same kind that it never saw.")]
BaseModel = Annotated[str | None, typer.Option("--base", help="What MODEL was tuned from; an adapter's is MODEL.")]
Examined = Annotated[int, typer.Option(min=0, help="Documents of each set to take gradients of; 0: none, no torch.")]
Candidates = Annotated[int, typer.Option(min=0, help="Endings written for each member; 0: no extraction.")]
Ending = Annotated[
    int, typer.Option(min=1, help="Tokens at a member's end to find, at most half of all; those of canaries are 5.")
]
Threshold = Annotated[float, typer.Option(min=0, max=1, help="Most members told at 1 % FPR, and most extracted.")]
Seed = Annotated[int, typer.Option(callback=g.seed_in_range, help="Of the drawn endings and of the intervals.")]
DocumentSeed = Annotated[int, typer.Option("--seed", callback=g.seed_in_range, help="Of the documents.")]
Trained = Annotated[
    str, typer.Option("--model", help="What is to be trained; it is fetched, and its tokens are the words.")
]
Folder = Annotated[Path, typer.Argument(help="Folder for members.txt and held-out.txt.")]
Count = Annotated[int, typer.Option(min=1, help="Documents to train on.")]
HeldOutCount = Annotated[int, typer.Option("--held-out", min=100, help="Documents to keep apart.")]


@app.command()
def canaries(
    folder: Folder,
    model: Trained = g.DEFAULT_MODEL,
    count: Count = 200,
    held_out: HeldOutCount = 1000,
    seed: DocumentSeed = 0,
) -> None:
    """Write canaries: documents to train on among others, and their like to keep apart."""
    from headrace.model.catalogue import resolve
    from headrace.model.loading import load_model
    from headrace.privacy.audit.canaries import SECRET_TOKENS, words_of
    from headrace.privacy.audit.canaries import canaries as draw
    from headrace.spec.ledger import Ledger

    files = [folder / "members.txt", folder / "held-out.txt"]
    if folder.is_file() or any(path.exists() for path in files):
        raise InvalidRequest(f"{folder} is a file or has canaries already; give another folder.", "folder")
    with progress_bars() as progress:
        loaded = load_model(resolve(model, progress), Ledger())
    if loaded.tokenizer is None or not loaded.spec.causal:
        raise UnsupportedModel(f"{model} does not generate text; give a model that does.")
    found = draw(words_of(loaded.tokenizer), seed, count, held_out)
    folder.mkdir(parents=True, exist_ok=True)
    for path, texts in zip(files, (found.members, found.held_out), strict=True):
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    note(f"{count} members and {held_out} held-out documents are in {folder}; audit with --ending {SECRET_TOKENS}.")


@app.command()
@with_flags(options=EngineOptions)
def run(
    members: Members,
    held_out: HeldOut,
    model: g.ModelName = g.DEFAULT_MODEL,
    base: BaseModel = None,
    examined: Examined = 100,
    candidates: Candidates = 8,
    ending: Ending = 16,
    threshold: Threshold = 0.1,
    seed: Seed = 0,
    json: g.Json = False,
    options: EngineOptions = EngineOptions(),
) -> None:
    """Audit a model, or the adapter of --adapter; exit code 1 where it is not passed."""
    adapter = g.adapter_of(options, 1.0).get("adapter")
    if base is not None and adapter is not None:
        raise InvalidRequest("An adapter's base is the model itself; leave --base out.", "base")
    if base == model:
        raise InvalidRequest("MODEL and --base are the same; give --base what MODEL was tuned from.", "base")
    check_examined(examined)
    sets = read_sets(members, held_out)
    how = How(examined, candidates, ending, threshold, seed)
    plain = replace(options, adapter=())
    with ExitStack() as opened:
        engine = opened.enter_context(g.loaded_engine(model, options, quiet=json))
        if not engine.spec.causal:
            raise UnsupportedModel(f"{model} does not generate text; audit a model that does.")
        other = engine if base is None else opened.enter_context(g.loaded_engine(base, plain, quiet=json))
        found = audited(subject(engine, other, model, adapter, how), sets, how, quiet=json)
    show(found, json)


class Sets(NamedTuple):
    members: list[str]
    held_out: list[str]


class How(NamedTuple):
    examined: int
    candidates: int
    ending: int
    threshold: float
    seed: int


def check_examined(examined: int) -> None:
    """Raises InvalidRequest for too few to have a hundredth, UnsupportedModel without torch."""
    from importlib.util import find_spec

    from headrace.privacy.audit.rates import LEAST_HELD_OUT

    if 0 < examined < LEAST_HELD_OUT:
        raise InvalidRequest(f"--examined is {examined}; give at least {LEAST_HELD_OUT}, or 0.", "examined")
    if examined and find_spec("torch") is None:
        raise UnsupportedModel("Gradients need torch: pip install 'headrace[torch]', or leave them out: --examined 0.")


def read_sets(members: Path, held_out: Path) -> Sets:
    """Raises InvalidRequest for files of another kind, and for too few documents, before a model is loaded."""
    from headrace.privacy.audit.rates import check_counts

    sets = Sets(read_documents(members), read_documents(held_out))
    check_counts(len(sets.members), len(sets.held_out))
    if both := set(sets.members) & set(sets.held_out):
        raise InvalidRequest(
            f"{len(both)} documents are members and held-out at once; take them out of {held_out.name}.", "held_out"
        )
    return sets


def read_documents(path: Path) -> list[str]:
    """Raises InvalidRequest for a file of another kind."""
    lines = [line for line in g.decoded(path.read_bytes()).splitlines() if line.strip()]
    if path.suffix != ".jsonl":
        return lines
    try:
        found = [js.loads(line)["text"] for line in lines]
    except (ValueError, KeyError, TypeError):
        found = [None]
    if not all(isinstance(text, str) for text in found):
        raise InvalidRequest(f"{path.name} is no JSONL with `text` in every line; correct it.", "documents")
    return found


def subject(engine: Surface, other: Surface, model: str, adapter: str | None, how: How) -> Subject:
    """The adapter against the model without it, or the model against another that it was tuned from."""
    from headrace.privacy.audit.audit import Subject
    from headrace.privacy.audit.likelihood import Likelihood

    base = None if adapter is None and other is engine else Likelihood(other)
    examiner = None
    if how.examined:
        from headrace.adapt.gradients import Examiner

        folder = Path(engine.options.adapter_folders[adapter]) if adapter else None
        examiner = Examiner(model, folder, engine.options.threads or 1)
    return Subject(adapter or engine.model_name, Likelihood(engine, adapter), base, examiner)


def audited(subject: Subject, sets: Sets, how: How, quiet: bool) -> Report:
    from headrace.privacy.audit.audit import report

    with progress_counts(quiet) as progress:
        members, held_out = (subject.measure(texts, how.examined, progress) for texts in sets)
        found = subject.extract(sets.members, how.candidates, how.seed, how.ending) if how.candidates else []
    return report(subject.name, members, held_out, found, how.threshold, how.seed)


def show(found: Report, json: bool) -> None:
    """Ends with exit code 1 where the audit is not passed, or its sets cannot be compared."""
    from headrace.privacy.audit.report import lines, table

    if json:
        print_json(found.to_json())
    else:
        print_table(("attack", "AUC", "TPR at 1 % FPR", "documents"), table(found))
        for line in lines(found):
            note(line)
    if not (found.passed and found.comparable):
        raise typer.Exit(EXIT_FAILED)
