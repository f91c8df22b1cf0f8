"""On a folder that `veil export` wrote align finds the key; a foreign model and an independent key give chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.privacy.attacks.artefact import Opened
from headrace.privacy.attacks.known_pairs import pairs_of
from headrace.privacy.attacks.on_weights import align_folder, told_folder
from headrace.privacy.attacks.recovery import RecoveryOverThreshold
from headrace.privacy.attacks.truth import token_map, truth_of
from headrace.privacy.veil.errors import ArtefactError
from headrace.privacy.veil.source import new_key
from headrace.spec.errors import InvalidRequest, UnsupportedModel
from privacy.attacks.folder import VOCAB, Deployment, deploy, write_model


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(write_model(tmp_path_factory.mktemp("foreign"), seed=77))


def test_tables_are_those_of_the_key(case: Deployment) -> None:
    expected = case.public.embedding()[case.truth.token_map] @ case.truth.rotation
    assert np.allclose(case.deployed.embedding(), expected, atol=1e-5)
    public, deployed = case.public.head(), case.deployed.head()
    assert public is not None and deployed is not None
    assert np.allclose(deployed, public[case.truth.token_map] @ case.truth.rotation, atol=1e-5)
    assert (token_map(case.key) == case.truth.token_map).all()
    assert case.deployed.first_id() == np.argsort(case.truth.token_map)[3]
    with pytest.raises(UnsupportedModel, match="no tokenizer for text"):
        _ = case.deployed.tokenizer


def test_align_finds_the_whole_planted_key(case: Deployment) -> None:
    found = align_folder(case.public, case.deployed, case.truth)
    assert found.types.value > 0.99 and found.types.low > found.types.chance and found.scored_by == "key"
    keys = found.details["keys"]
    assert found.details["rotation_error"] < 1e-3 and keys["unexplained"] < 1e-3
    assert keys["heads"] == keys["units"] == 1 and keys["layers"] == 2
    assert found.cost.seconds > 0 and found.cost.bytes == 2 * case.public.embedding().nbytes
    with pytest.raises(RecoveryOverThreshold):
        found.check(0.5)


def test_without_the_key_it_knows_that_it_is_right(case: Deployment, foreign: Opened) -> None:
    sure = align_folder(case.public, case.deployed)
    assert sure.scored_by == "confidence" and sure.types.value > 0.99 and "own confidence" in str(sure)
    unsure = align_folder(foreign, case.deployed)
    assert unsure.types.value < 0.05 and unsure.details["start"] in ("invariants", "moments")
    with pytest.raises(InvalidRequest, match="how sure it is"):
        unsure.check(0.1)


def test_a_foreign_model_and_an_independent_key_give_chance(case: Deployment, foreign: Opened) -> None:
    assert align_folder(foreign, case.deployed, case.truth).types.contains_chance
    null = align_folder(case.public, case.deployed, case.other)
    assert null.types.contains_chance and null.mass.contains_chance


def test_pairs_open_the_folder_too(case: Deployment) -> None:
    wire = np.random.default_rng(0).permutation(VOCAB)[:80]
    told = pairs_of(wire, case.truth.token_map[wire])
    found = told_folder(case.public, case.deployed, told, case.truth)
    assert found.types.value > 0.99 and found.scored == VOCAB - 80
    assert told_folder(case.public, case.deployed, told, case.other).types.contains_chance


def test_bf16_is_no_defence(tmp_path: Path) -> None:
    case = deploy(tmp_path, "bf16")
    assert align_folder(case.public, case.deployed, case.truth).types.value > 0.99


def test_another_key_is_no_truth(case: Deployment) -> None:
    with pytest.raises(ArtefactError, match="another key"):
        truth_of(case.deployed.path, new_key(case.public.path), case.deployed.spec)
