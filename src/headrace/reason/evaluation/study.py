"""Studies: evaluations that are written down before they are run, with strategies as wide as each budget can pay."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from headrace.engine.surface import Surface
from headrace.reason.evaluate import Design, checked, evaluate, figures, jobs
from headrace.reason.evaluation.filling import How, Report
from headrace.reason.evaluation.store import Store
from headrace.reason.evaluation.table import holm_corrected
from headrace.reason.strategy import parse
from headrace.reason.tasks.item import Item
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Scorer
from headrace.spec.sampling import Sampling

Kind: TypeAlias = Literal["baseline", "comparison"]
WIDTHS = ("n", "half")
"""What a strategy's text may leave open: the width of its budget, and half of it, 1 at least."""


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One budget, and what stands for `{n}` in the strategies that are compared within it."""

    budget: str = ""
    n: int = 1

    @property
    def bound(self) -> Budget:
        return Budget.parse(self.budget) if self.budget else Budget()

    def written(self, strategy: str) -> str:
        """The strategy at this level, in the words in which it is stored."""
        return str(parse(strategy.format(n=self.n, half=max(self.n // 2, 1))))


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Strategies, each of which meets every level."""

    strategies: tuple[str, ...]
    levels: tuple[Level, ...] = (Level(),)


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model on one task. `section`: of the page; `note`: what its reader has to know.

    `model`: a fixture or what the catalogue knows. `samples`: the pool's attempts a question, 0 for as many as are
    needed. `store`: the name of its file of samples, where that is not its own name.
    """

    name: str
    section: str
    model: str
    task: str
    questions: int
    blocks: tuple[Block, ...]
    kind: Kind = "comparison"
    note: str = ""
    seed: int = 0
    samples: int = 0
    scorer: str = ""
    temperature: float = 0.8
    max_tokens: int = 0
    concurrency: int = 16
    store: str = ""
    engine: dict[str, Any] = {}


def read_studies(path: Path) -> tuple[Study, ...]:
    """The studies of a TOML file. Raises InvalidRequest for one that cannot be read, or a name given twice."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8"))["study"], tuple[Study, ...])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, KeyError) as error:
        raise InvalidRequest(f"{path} holds no studies ({error}); correct it.", "study") from None
    names = [study.name for study in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidRequest(f"{path} has the study {twice[0]!r} twice; rename one.", "study")
    return found


def how_of(study: Study, scorer: Scorer | None) -> How:
    return How(study.seed, Sampling(temperature=study.temperature), scorer, study.concurrency)


def designs(study: Study, items: Sequence[Item]) -> list[tuple[Level, dict[str, str], Design]]:
    """One design a block and level, with the strategies' texts as the study has them."""
    found = []
    for block in study.blocks:
        for level in block.levels:
            texts = {level.written(text): text for text in block.strategies}
            found.append((level, texts, Design(items, tuple(texts), (level.bound,), study.samples)))
    return found


def shortened(items: Sequence[Item], tokens: int) -> list[Item]:
    """The same questions with attempts of that many tokens at most; 0 leaves them as they are."""
    if not tokens:
        return list(items)
    return [replace(one, task=replace(one.task, ending=replace(one.task.ending, tokens=tokens))) for one in items]


async def carried_out(
    engine: Surface,
    study: Study,
    items: Sequence[Item],
    scorer: Scorer | None,
    store: Store,
    report: Report | None = None,
) -> dict[str, Any]:
    """Fills the store and returns the figures of all blocks and levels as one table.

    Raises InvalidRequest before anything runs, and what the engine raises; what is stored stays.
    """
    how, parts = how_of(study, scorer), list[dict[str, Any]]()
    todo = designs(study, items)
    for _, _, design in todo:
        checked(design, how)
    for level, texts, design in todo:
        parts.append(_marked(await evaluate(engine, design, how, store, report), texts, level))
    return joined(parts)


def recomputed(study: Study, items: Sequence[Item], scorer: Scorer | None, store: Store) -> dict[str, Any]:
    """The same figures from a store that has everything, without an engine.

    Raises InvalidRequest for a store of something else, or one that has not got all.
    """
    how, parts = how_of(study, scorer), list[dict[str, Any]]()
    asked = {"task": study.task, "seed": study.seed, "temperature": study.temperature}
    if any(store.settings.get(name) != value for name, value in asked.items()):
        raise InvalidRequest(f"{store.path} is of another study than {study.name}; give its own folder.", "stores")
    for level, texts, design in designs(study, items):
        plans = checked(design, how)
        if missing := sum(not store.has(job.key) for job in jobs(design, plans, how)):
            raise InvalidRequest(
                f"{store.path} lacks {missing} runs of {study.name}; run the study without --again.", "again"
            )
        parts.append(_marked(figures(store, design, plans, how), texts, level))
    return joined(parts)


def _marked(found: dict[str, Any], texts: Mapping[str, str], level: Level) -> dict[str, Any]:
    """Every row also says what it is called in the study, whatever its width."""
    for row in (*found["rows"], *found["comparisons"], *found["oracle"]):
        row["called"], row["n"] = texts[row["strategy"]], level.n
    found["baseline"] = texts.get(found["baseline"], found["baseline"])
    return found


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One table: rows and comparisons of all parts, Holm's correction over all of them, the largest pool."""
    whole = dict(parts[0])
    for name in ("rows", "comparisons", "oracle"):
        whole[name] = [entry for part in parts for entry in part[name]]
    corrected = holm_corrected([one["p"] for one in whole["comparisons"]])
    for one, holm in zip(whole["comparisons"], corrected, strict=True):
        one["holm"] = holm
    pools = [part["pool"] for part in parts if part["pool"] is not None]
    whole["pool"] = max(pools, key=lambda pool: int(pool["samples"]), default=None)
    return whole
