"""Fixtures: every recipe is sound, and a fixture is trained once, kept, and runs."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from headrace.adapt.folder import settings, spec_of
from headrace.adapt.lesson import END, encode
from headrace.adapt.recipe import Full, Source
from headrace.engine.llm import LLM
from headrace.model.tokenizer import Tokenizer
from headrace.reason.tasks import fixtures
from headrace.reason.tasks.arith import problems
from headrace.reason.tasks.fixtures import fixture, fixture_names, fixture_recipe, lessons
from headrace.spec.errors import ModelFileError, UnsupportedModel
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

TINY = """
name = "tiny"
steps = 6
batch = 4
threads = 1
[train]
kind = "full"
layers = 1
hidden = 32
heads = 1
kv_heads = 1
width = 32
context = 256
[lessons]
name = "arith"
settings = {steps = [1, 2]}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only recipe there is, and a cache of its own."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "tiny.toml").write_text(TINY)
    monkeypatch.setattr(fixtures, "RECIPES", recipes)
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return recipes / "tiny.toml"


@pytest.mark.parametrize("name", fixture_names())
def test_every_recipe_is_sound(name: str) -> None:
    recipe = fixture_recipe(name)
    draw, vocabulary = lessons(recipe.lessons)
    assert recipe.name == name and isinstance(recipe.train, Full)
    spec = spec_of(settings(recipe.train, vocabulary))
    assert {layer.attention.head_dim % 32 for layer in spec.layers} == {0}
    tokenizer = Tokenizer(vocabulary.core(), eos=(1,))
    for seed in range(200):
        row = encode(tokenizer, draw(Random(seed)))
        assert 0 not in [token for token, _ in row], "no part of a lesson is unknown"
        assert len(row) <= recipe.train.context


def test_the_fixtures_are_those_of_the_issue() -> None:
    assert {"lm-t-small", "lm-t-large"} <= set(fixture_names())


def test_a_fixture_is_trained_once_and_answers(tiny: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    folder = fixture("tiny")
    said = capsys.readouterr().err
    assert said.startswith("Training tiny: step 6 of 6, loss ") and said.count("\n") == 1
    assert fixture("tiny", lambda progress: pytest.fail("it is trained already")) == folder
    with LLM(folder, EngineOptions(threads=1)) as llm:
        (problem,) = problems("sums", 3, 1)
        ids = llm.engine.encode(problem.question)
        assert len(ids) == len(problem.question), "digits and signs are tokens of their own"
        step = llm.generate(problem.question, Sampling(temperature=0), Stop(tokens=8))[0].steps[0]
        assert 1 <= len(step.token_ids) <= 8
        text = "Answer: 7\nRight? yes"
        assert llm.engine.tokenizer.decode(llm.engine.encode(text)) == text
        assert llm.engine.encode([{"role": "user", "content": problem.question}]) == ids, "a chat is its lines"
        newline = llm.engine.encode("\n")
        assert len(newline) == 1 and ids[-1:] == newline


def test_a_changed_recipe_is_another_fixture(tiny: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    first = fixture("tiny", lambda progress: None)
    tiny.write_text(TINY.replace("[1, 2]", "[1, 3]"))
    assert fixture("tiny", lambda progress: None) != first


def test_what_cannot_be_had_is_said_in_one_sentence(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError, match=r"No fixture is called 'lm-x'; give one of tiny\."):
        fixture("lm-x")
    with pytest.raises(ModelFileError, match="No lessons are called 'logic'"):
        lessons(Source("logic"))
    with pytest.raises(ModelFileError, match="wants version 99 of the lessons 'arith'"):
        lessons(Source("arith", version=99))
    with pytest.raises(ModelFileError, match="unknown field `step`"):
        lessons(Source("arith", settings={"step": [1, 2]}))
    monkeypatch.setattr(fixtures, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedModel, match=r"needs torch; install it with: pip install 'headrace\[torch\]'"):
        fixture("tiny")


def test_lessons_end_with_the_end_token() -> None:
    draw, vocabulary = lessons(Source("arith", settings={"check": 0.0}))
    row = encode(Tokenizer(vocabulary.core(), eos=(1,)), draw(Random(1)))
    assert row[-1] == (1, True) and draw(Random(1))[-1].text.endswith(END)


def test_the_docs_say_what_training_took() -> None:
    root = Path(__file__).resolve().parents[2]
    found = json.loads((root / "benchmarks" / "results" / "lm-t.json").read_text(encoding="utf-8"))["fixtures"]
    small, large = (next(one for one in found if one["fixture"] == name) for name in ("lm-t-small", "lm-t-large"))
    words = " ".join((root / "docs" / "training.md").read_text(encoding="utf-8").split())
    took = " and ".join(f"{one['training']['cpu_seconds']:.0f}" for one in (small, large))
    assert f"in {took} seconds of processor time" in words
    wrong, more = (
        f"{one['recipe']['lessons']['settings']['mistake']:.0%}".replace("%", " %") for one in (small, large)
    )
    assert f"({wrong} of the steps for the small one, {more} for the large one)" in words
