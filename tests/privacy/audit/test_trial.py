"""A trial of seconds: an adapter that learned by heart is told, what it never saw is not; cells are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")

from msgspec.structs import replace

from headrace.adapt.recipe import Lora
from headrace.model.catalogue import resolve
from headrace.model.loading import load_model
from headrace.privacy.audit.canaries import SECRET, SECRET_TOKENS, canaries, words_of
from headrace.privacy.audit.extraction import cut
from headrace.privacy.audit.small import WORDS, small_base, small_trial
from headrace.privacy.audit.trial import (
    SMOLLM2,
    Bench,
    Cell,
    Reports,
    Trial,
    cells_of,
    keep_cell,
    read_cells,
    read_trial,
    run_trial,
)
from headrace.spec.errors import InvalidRequest, ModelFileError
from headrace.spec.ledger import Ledger


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return small_trial(small_base(tmp_path_factory.mktemp("small") / "base"))


@pytest.fixture(scope="module")
def trained(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    with Bench.load(trial, tmp_path_factory.mktemp("adapters")) as bench:
        yield bench.run(Cell(5, "trained"))


def test_what_was_learned_by_heart_is_told(trained: Reports) -> None:
    found = trained["members"]
    assert found.by("loss-ratio").tpr.value >= 0.8 and found.extracted is not None and found.extracted.value > 0.4
    assert not found.passed and found.comparable


def test_what_was_never_seen_is_not(trained: Reports) -> None:
    control, base = trained["control"], trained["base"]
    assert control.by("loss-ratio").auc.contains_chance and control.passed
    assert base.by("loss").auc.contains_chance and base.passed and base.extracted is None


def test_kept_cells_are_not_run_again(trial: Trial, trained: Reports, tmp_path: Path) -> None:
    path, cell = tmp_path / "cells.jsonl", Cell(5, "trained")
    keep_cell(path, cell, trained)
    with path.open("a", encoding="utf-8") as file:
        file.write('\n{"seed": 5, "vari')
    assert read_cells(path) == {cell: dict(trained)}
    gone = replace(trial, recipe=replace(trial.recipe, train=replace(trial.recipe.train, base="/nowhere")))
    with pytest.raises(ModelFileError):
        run_trial(gone, [5], path)
    for variant in ("early", "noisy"):
        keep_cell(path, Cell(5, variant), trained)
    assert run_trial(gone, [5], path) == {key: dict(trained) for key in cells_of([5])}


def test_no_cell_is_begun_without_time(trial: Trial, tmp_path: Path) -> None:
    assert run_trial(trial, [5], tmp_path / "cells.jsonl", seconds=-1) == {}


def test_what_is_to_be_found_is_the_second_half_of_a_phrase(trial: Trial) -> None:
    tokenizer = load_model(resolve(trial.base), Ledger()).tokenizer
    assert tokenizer is not None
    words = words_of(tokenizer)
    assert set(words) == set(WORDS)
    for text in canaries(words, 3, 60, 0).members:
        known, secret = cut(tuple(tokenizer.encode(text)), SECRET_TOKENS)
        assert tokenizer.decode(secret).split() == text.split()[-SECRET:]
        assert tokenizer.decode(known) + tokenizer.decode(secret) == text


def test_the_trial_at_full_counts_is_the_one_that_was_asked_for() -> None:
    trial = read_trial()
    assert (trial.members, trial.epochs) == (200, 3) and trial.held_out >= 1000 and trial.examined >= 100
    assert isinstance(trial.recipe.train, Lora) and trial.recipe.train.base == "smollm2-135m"
    recipes = {variant: trial.recipe_of(variant, 1) for variant in ("trained", "early", "noisy")}
    assert recipes["trained"].steps * recipes["trained"].batch == 600 == recipes["noisy"].steps * recipes["noisy"].batch
    assert recipes["early"].steps < recipes["trained"].steps // 3, "within the first epoch"
    assert recipes["noisy"].train.noise == trial.noise and recipes["trained"].train.noise is None
    digests = {recipe.digest for recipe in (*recipes.values(), trial.recipe_of("trained", 2))}
    assert len(digests) == 4

    with pytest.raises(InvalidRequest, match="4 epochs over 200 documents are 200 steps"):
        replace(trial, epochs=4)


def test_a_file_that_is_no_trial_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(SMOLLM2.read_text("utf-8").replace("epochs = 3", "epochs = 2"), encoding="utf-8")
    with pytest.raises(ModelFileError, match="is not a trial"):
        read_trial(path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_trial(tmp_path / "none.toml")
