"""A trial: adapters trained on canaries by one recipe, as it stands, stopped early, and along noisy gradients, audited.

Finished cells (a seed and a variant) are kept in a file and not run twice; a training goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import msgspec
from msgspec.structs import replace

from headrace.adapt.kept import trained_folder
from headrace.adapt.lesson import Piece
from headrace.adapt.recipe import Lora, Noise, Recipe, Source
from headrace.engine.engine import Engine
from headrace.model.catalogue import cache_folder
from headrace.privacy.audit.audit import Progress, Subject, report
from headrace.privacy.audit.canaries import SECRET_TOKENS, Canaries, canaries, words_of
from headrace.privacy.audit.canaries import VERSION as DOCUMENTS
from headrace.privacy.audit.extraction import CANDIDATES
from headrace.privacy.audit.likelihood import Likelihood
from headrace.privacy.audit.report import THRESHOLD, Report
from headrace.spec.errors import InvalidRequest, ModelFileError, UnsupportedModel
from headrace.spec.options import EngineOptions

VERSION = 2
"""Goes up when a change makes kept cells say something else."""
Variant: TypeAlias = Literal["trained", "early", "noisy"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
SMOLLM2 = Path(__file__).with_name("smollm2.toml")
Reports: TypeAlias = Mapping[str, Report]
"""`members`: the audit. For what was trained to the end also `control`, on documents that it never saw in the
members' place, and `base`, the untrained model on the members."""


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`recipe`: of kind lora, whose steps are `epochs` over `members` documents exactly.

    `early`: steps of the variant that is stopped early, over which its rate falls; `noise` and `noisy_batch`: of the
    noisy one, whose noise is shared by the documents of a step. `examined`: documents of each set that are looked at
    with gradients. `threads`: of the engine.
    """

    recipe: Recipe
    epochs: int
    early: int
    noise: Noise
    noisy_batch: int
    members: int = 200
    held_out: int = 1000
    control: int = 200
    examined: int = 100
    candidates: int = CANDIDATES
    threshold: float = THRESHOLD
    threads: int = 1

    def __post_init__(self) -> None:
        steps = self.steps_of(self.recipe.batch)
        if not isinstance(self.recipe.train, Lora) or self.recipe.steps != steps:
            raise InvalidRequest(
                f"{self.epochs} epochs over {self.members} documents are {steps} steps of an adapter's recipe; "
                "correct the trial.",
                "steps",
            )

    @property
    def base(self) -> str:
        assert isinstance(self.recipe.train, Lora)
        return self.recipe.train.base

    @property
    def digest(self) -> str:
        """Hex, of all that decides the figures."""
        held = msgspec.json.encode([VERSION, DOCUMENTS, self], order="deterministic")
        return hashlib.sha256(held).hexdigest()[:16]

    def steps_of(self, batch: int) -> int:
        return self.epochs * -(-self.members // batch)

    def recipe_of(self, variant: Variant, seed: int) -> Recipe:
        """The recipe with that seed for documents, first weights and order."""
        source = Source("canaries", DOCUMENTS, {"documents": self.members, "seed": seed})
        recipe = replace(self.recipe, seed=seed, lessons=source)
        if variant == "early":
            return replace(recipe, steps=self.early)
        if variant == "noisy":
            train, batch = replace(recipe.train, noise=self.noise), self.noisy_batch
            return replace(recipe, train=train, batch=batch, steps=self.steps_of(batch))
        return recipe


def read_trial(path: Path = SMOLLM2) -> Trial:
    """Reads a .toml file. Raises ModelFileError where it cannot be read or is no trial."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Trial)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except (msgspec.MsgspecError, InvalidRequest, ValueError) as error:
        raise ModelFileError(f"{path.name} is not a trial ({str(error).rstrip('.')}); correct it.") from None


class Cell(NamedTuple):
    seed: int
    variant: Variant


def cells_of(seeds: Sequence[int]) -> list[Cell]:
    return [Cell(seed, variant) for seed in seeds for variant in VARIANTS]


class Bench:
    """The base model, loaded once, on which a trial's adapters are audited."""

    def __init__(self, trial: Trial, engine: Engine, folder: Path) -> None:
        self._trial, self._engine, self._folder = trial, engine, folder
        self._base = Likelihood(engine)

    @classmethod
    @contextmanager
    def load(cls, trial: Trial, folder: Path | None = None) -> Iterator[Bench]:
        """`folder`: where adapters are kept, by default the user's cache."""
        with Engine.load(trial.base, EngineOptions(threads=trial.threads)) as engine:
            yield cls(trial, engine, folder or trained_folder())

    def run(self, cell: Cell, progress: Progress | None = None) -> Reports:
        """Trains the cell's adapter where it is not there yet, and audits it."""
        documents = self._documents(cell.seed)
        adapter, name = self.train(cell, documents.members), f"{cell.variant}-{cell.seed}"
        self._engine.add_adapter(name, adapter)
        try:
            return self._audit(cell, self._subject(name, adapter), documents, progress)
        finally:
            self._engine.remove_adapter(name)

    def _documents(self, seed: int) -> Canaries:
        trial, tokenizer = self._trial, self._engine.tokenizer
        if tokenizer is None:
            raise UnsupportedModel(f"{trial.base} has no tokenizer; give a trial on a model that has one.")
        return canaries(words_of(tokenizer), seed, trial.members, trial.held_out, trial.control)

    def train(self, cell: Cell, members: Sequence[str]) -> Path:
        from headrace.adapt.lora import train_lora
        from headrace.adapt.report import Lines

        recipe = self._trial.recipe_of(cell.variant, cell.seed)
        folder = self._folder / recipe.digest
        if not folder.is_dir():
            lessons = [(Piece(text),) for text in members]
            train_lora(recipe, lessons, folder, Lines(f"Training {cell.variant} {cell.seed}"))
        return folder

    def _subject(self, name: str, adapter: Path) -> Subject:
        from headrace.adapt.gradients import Examiner

        examiner = Examiner(self._trial.base, adapter, self._trial.threads)
        return Subject(name, Likelihood(self._engine, name), self._base, examiner)

    def _audit(self, cell: Cell, subject: Subject, documents: Canaries, progress: Progress | None) -> Reports:
        trial = self._trial
        members, held_out = (
            subject.measure(texts, trial.examined, progress) for texts in (documents.members, documents.held_out)
        )
        found = subject.extract(documents.members, trial.candidates, cell.seed, SECRET_TOKENS)
        how = (trial.threshold, cell.seed)
        reports = {"members": report(subject.name, members, held_out, found, *how)}
        if cell.variant == "trained":
            control = subject.measure(documents.control, trial.examined, progress)
            endings = subject.extract(documents.control, trial.candidates, cell.seed, SECRET_TOKENS)
            reports["control"] = report("never seen", control, held_out, endings, *how)
            base = Subject("never trained", self._base)
            plain = base.measure(documents.members)
            reports["base"] = report(base.name, plain, base.measure(documents.held_out), (), *how)
        return reports


def run_trial(
    trial: Trial, seeds: Sequence[int], path: Path | None = None, seconds: float = 1e9, progress: Progress | None = None
) -> dict[Cell, Reports]:
    """The trial's cells, run where they are not kept; none is begun after that much processor time.

    `path`: the file of kept cells, by default in the user's cache. Raises ModelFileError, UnsupportedModel.
    """
    path = path or cache_folder() / "privacy" / f"audit-{trial.digest}.jsonl"
    wanted, done, began = cells_of(seeds), read_cells(path), time.process_time()
    if left := [cell for cell in wanted if cell not in done]:
        with Bench.load(trial) as bench:
            for cell in left:
                if time.process_time() - began < seconds:
                    done[cell] = bench.run(cell, progress)
                    keep_cell(path, cell, done[cell])
    return {cell: done[cell] for cell in wanted if cell in done}


def keep_cell(path: Path, cell: Cell, reports: Reports) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {**cell._asdict(), "reports": {name: msgspec.to_builtins(found) for name, found in reports.items()}}
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(row))  # a line that was cut off ends here


def read_cells(path: Path) -> dict[Cell, Reports]:
    """Cells done earlier; a line that was cut off is left out."""
    found: dict[Cell, Reports] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        reports = {name: Report.from_json(held) for name, held in row["reports"].items()}
        found[Cell(row["seed"], row["variant"])] = reports
    return found
