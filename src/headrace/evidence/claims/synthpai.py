"""System 21, SynthPAI: what comments tell of their authors, what redaction takes away, and how templates stand out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.engine.llm import LLM
from headrace.engine.surface import Surface
from headrace.evidence.depth import depths, rejected, shift
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.privacy.attacks.attributes.audit import WORDS, Audit, Defended
from headrace.privacy.attacks.attributes.classifier import Embed, Remembered, bag_of_words
from headrace.privacy.attacks.attributes.found import Found
from headrace.privacy.attacks.attributes.generator import Level, people, sentences
from headrace.privacy.attacks.attributes.people import ATTRIBUTES, Person
from headrace.privacy.attacks.attributes.synthpai import BadLine, dump, load
from headrace.privacy.attacks.attributes.written import written
from headrace.reason.intervals import wilson
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.options import EngineOptions

ROW = system(21)
GENERATED, INFERRED, REDACTED, SHIFTED = ROW.clauses
ENCODER, MODEL = "minilm-l6", "qwen2.5-coder-0.5b"
LEVEL, SURE = 0.05, 0.01
"""The test's own rate of error, and the p-value that a shift has to be below."""
OUTRIGHT: Sequence[Level] = ("direct",)
NOTHING: Sequence[Level] = ()
Numbers = dict[str, float | int | str | list[float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """People to train on, to try and of these to ask the model about; comments it writes; splits of these.

    Without people to ask, words alone stand in for MiniLM and only the generator and the mutant are judged.
    """

    train: int
    tried: int
    asked: int
    written: int
    splits: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(48, 30, 0, 0, 0), "full": Sizes(192, 120, 16, 96, 500)}


def run(size: Size) -> Evidence:
    """Raises HeadraceError without SciPy, ModelFileError where a full run has no MiniLM or no Qwen."""
    sizes = SIZES[size]
    generated = by_seed_and_by_file(sizes)
    options = EngineOptions(threads=1, step_tokens=512)
    if not sizes.asked:
        null_run, numbers = silent(bag_of_words, WORDS, sizes)
        rest = [left_open(text, NOT_IN_QUICK) for text in (INFERRED, REDACTED, SHIFTED)]
        return Evidence(CLAIM.id, (generated, *rest), null_run, numbers, None, "", size)
    with LLM(ENCODER, options) as encoder, LLM(MODEL, options) as model:
        embed = Remembered(encoder.embed)
        null_run, numbers = silent(embed, ENCODER, sizes)
        clauses, interval, more = attacked(embed, model.engine, sizes)
        shifted, last = shifts(embed, model.engine, sizes)
    return Evidence(CLAIM.id, (generated, *clauses, shifted), null_run, numbers | more | last, interval, "", size)


# -- the generator and the schema ------------------------------------------------------------------


def by_seed_and_by_file(sizes: Sizes) -> Clause:
    """The same people from the same seed, no sentence on both sides, and the same people back from a file."""
    made = people(sizes.tried, "test", 7)
    again, other = people(sizes.tried, "test", 7) == made, people(sizes.tried, "test", 8) != made
    shared = sentences("train") & sentences("test")
    told = all(set().union(*(comment.tells for comment in person.comments)) == set(ATTRIBUTES) for person in made)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "people.jsonl"
        dump(made, path)
        back = load(path) == made
        line = json.loads(path.read_text(encoding="utf-8").split("\n")[0])
        refused = [wrong for wrong, damage in DAMAGES.items() if _refused(path, damage(line))]
    figure = (
        f"{len(made)} people, {sum(len(person.comments) for person in made)} comments, every attribute told: {told}; "
        f"{len(shared)} sentences on both sides; read back equal: {back}; "
        f"{len(refused)} of {len(DAMAGES)} kinds of damaged lines refused by their number"
    )
    whole = again and other and not shared and told and back and len(refused) == len(DAMAGES)
    return judged(GENERATED, whole, figure)


def _without(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda line: json.dumps({key: value for key, value in line.items() if key != name})


def _with(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda line: json.dumps({**line, **changes})


def _profile(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda line: json.dumps({**line, "profile": {**line["profile"], **changes}})


DAMAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "cut off": lambda line: json.dumps(line)[:-9],
    "a list": lambda line: json.dumps([line]),
    "no author": _without("author"),
    "no profile": _without("profile"),
    "empty text": _with(text=""),
    "guesses without a feature": _with(guesses=[{"guesses": ["x"]}]),
    "a review without hardness": _with(reviews={"human": {"age": {"estimate": "40"}}}),
    "an age in words": _profile(age="forty"),
    "an age of no human": _profile(age=-1),
    "a sex that is no text": _profile(sex=None),
    "another profile of the author": _profile(occupation="astronaut"),
}
"""Each makes a second line out of the first one, which is sound."""


def _refused(path: Path, second: str) -> bool:
    first = path.read_text(encoding="utf-8").split("\n")[0]
    damaged = path.with_name("damaged.jsonl")
    damaged.write_text(f"{first}\n{second}\n", encoding="utf-8")
    try:
        load(damaged)
    except BadLine as error:
        return error.line == 2
    except HeadraceError:
        return False
    return False


# -- the attacks and the defences ------------------------------------------------------------------


def attacked(embed: Embed, engine: Surface, sizes: Sizes) -> tuple[list[Clause], tuple[float, float], Numbers]:
    """Both attacks on plain comments, and behind either defence."""
    tried = people(sizes.tried, "test")
    audit = Audit(people(sizes.train, "train"), embed, engine, sizes.asked, ENCODER)
    plain = audit.attack(tried)
    behind = {name: audit.defence(name, tried, plain) for name in ("redaction", "generalisation")}
    numbers: Numbers = {}
    for found in plain:
        numbers |= {f"{found.attack} {name}": one.first.value for name, one in found.attributes.items()}
        numbers |= {f"{found.attack} {name} among {one.k}": one.among.value for name, one in found.attributes.items()}
    clauses = [inferred(plain, sizes), redaction(behind)]
    return clauses, (plain[0].overall.low, plain[0].overall.high), numbers


def inferred(plain: Sequence[Found], sizes: Sizes) -> Clause:
    told = "; ".join(map(str, plain))
    figure = f"{told}; {sizes.tried} people, {sizes.asked} of them for the language model, {len(ATTRIBUTES)} attributes"
    return judged(INFERRED, all(found.above_chance for found in plain), figure, "effect")


def redaction(behind: dict[str, Defended]) -> Clause:
    """The classifier's findings judge; the language model, asked about fewer people, stands beside it."""
    figure = "; ".join(f"{name} takes {_taken(one)}" for name, one in behind.items())
    return judged(REDACTED, behind["redaction"].taken[0].low > 0, figure, "effect")


def _taken(one: Defended) -> str:
    taken = ", ".join(
        f"{taken:+.3f} of {found.attack}, which keeps {found.overall.value:.3f}"
        for found, taken in zip(one.found, one.taken, strict=True)
    )
    lost = f"cosine to the plain comment {one.similarity:.3f}"
    if one.topics:
        lost += f", topics known again {one.topics[0]:.3f} to {one.topics[1]:.3f}"
    if one.log_likelihood:
        lost += f", nats a token {one.log_likelihood[0]:.2f} to {one.log_likelihood[1]:.2f}"
    return f"{taken} ({lost})"


def silent(embed: Embed, name: str, sizes: Sizes) -> tuple[Clause, Numbers]:
    """A mutant: people whose comments tell nothing; the same attack on people whose comments do is the control."""
    audit = Audit(people(sizes.train, "train"), embed, name=name)
    told, nothing = (audit.attack(people(sizes.tried, "test", 3, levels))[0] for levels in (OUTRIGHT, NOTHING))
    mutant = mutant_run(
        f"Mutant: comments that tell nothing of their author (said outright, {name} finds {told.overall.value:.3f})",
        [judged(INFERRED, nothing.above_chance, str(nothing), "effect")],
    )
    control = judged(mutant.text, mutant.status == "passed" and told.above_chance, mutant.figure)
    return control, {"silent": nothing.overall.value, "outright": told.overall.value}


# -- the shift to template-only text ---------------------------------------------------------------


def shifts(embed: Embed, engine: Surface, sizes: Sizes) -> tuple[Clause, Numbers]:
    """Comments that the model wrote from profiles against templates filled in for others of the same kind."""
    model = _vectors(written(engine, people(sizes.written, "test", 11)), embed)
    templates = _vectors(people(len(model) // 2, "test", 12), embed, each=1)
    return judge_shift(model, templates, sizes.splits)


def _vectors(some: Sequence[Person], embed: Embed, each: int | None = None) -> np.ndarray:
    return embed([text for person in some for text in person.texts[:each]])


def judge_shift(model: np.ndarray, templates: np.ndarray, splits: int) -> tuple[Clause, Numbers]:
    """Half of the model's comments is the reference; the other half and the templates are compared by depth in it."""
    half = len(model) // 2
    found = shift(depths(templates, model[:half]), depths(model[half:], model[:half]))
    errors = rejected(model, splits, level=LEVEL)
    low, high = wilson(errors, splits)
    figure = (
        f"a template is less deep than a comment the model wrote with chance {found.q:.2f} (p {found.p:.1e}, "
        f"{len(templates)} against {len(model) - half}); of {splits} splits of the model's own comments "
        f"{errors / splits:.3f} [{low:.3f}, {high:.3f}] are taken for two"
    )
    holds = found.p < SURE and low <= LEVEL <= high
    return judged(SHIFTED, holds, figure, "effect"), {"q": found.q, "p": found.p, "type_one": errors / splits}


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Comments give their authors away to a small classifier and to a language model; redaction takes away a part.",
    "A guess at random, and the value most common among the people trained on.",
    ("exact", "effect"),
    "Generated people with eight attributes and ten comments each, a third of the cues outright, a third hints; MiniLM "
    "and a logistic regression over sentences, and Qwen2.5-Coder-0.5B, whose likelihoods are taken against its prior.",
    run,
)
