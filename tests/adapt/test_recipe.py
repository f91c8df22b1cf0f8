"""Recipe files, digests, learning rates, batches and the cache of what was trained."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from adapt.small import VOCABULARY, echo, recipe
from headrace.adapt.batches import Batches
from headrace.adapt.kept import kept
from headrace.adapt.lesson import END, Piece, encode
from headrace.adapt.recipe import Lora, Optimiser, ValueHead, read_recipe, write_recipe
from headrace.model.tokenizer import Tokenizer
from headrace.spec.errors import ContextExceeded, HeadraceError, InvalidRequest, ModelFileError

TOML = """
name = "small"
steps = 20
batch = 8
threads = 1
[train]
kind = "lora"
base = "smollm2-135m"
targets = ["q", "v"]
[lessons]
name = "letters"
settings = {most = 3}
[optimiser]
rate = 0.01
"""


def tokenizer() -> Tokenizer:
    return Tokenizer(VOCABULARY.core(), eos=(1,))


@pytest.mark.parametrize("train", [recipe().train, Lora("base"), ValueHead("base", width=8)])
def test_a_recipe_is_read_back_as_it_was_written(train: object, tmp_path: Path) -> None:
    made = recipe(train)
    write_recipe(made, tmp_path / "recipe.json")
    assert read_recipe(tmp_path / "recipe.json") == made


def test_a_toml_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(TOML)
    made = read_recipe(tmp_path / "r.toml")
    assert made.train == Lora("smollm2-135m", targets=("q", "v"))
    assert made.lessons.settings == {"most": 3} and made.optimiser.rate == 0.01


@pytest.mark.parametrize(
    "change", [("steps = 20", "steps = 0"), ("batch = 8", "bach = 8"), ('"lora"', '"magic"'), ("[train]", "[train")]
)
def test_a_wrong_recipe_is_refused_in_one_sentence(change: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(TOML.replace(*change))
    with pytest.raises(ModelFileError, match=r"^r\.toml is not a recipe .*; correct it\.$"):
        read_recipe(tmp_path / "r.toml")
    with pytest.raises(ModelFileError, match="check the path"):
        read_recipe(tmp_path / "none.toml")


def test_the_digest_tells_all_recipes_apart() -> None:
    made = recipe()
    others = [{"seed": 4}, {"steps": 21}, {"threads": 2}, {"train": Lora("x")}, {"optimiser": Optimiser(rate=2e-2)}]
    digests = {msgspec.structs.replace(made, **change).digest for change in others}
    assert len(digests | {made.digest}) == len(others) + 1
    assert recipe().digest == made.digest


def test_the_rate_rises_and_falls() -> None:
    rates = [Optimiser(rate=1.0, warmup=5, final=0.1).rate_at(step, 50) for step in range(51)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and rates[50] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates[5:]))


def test_a_batch_depends_on_the_seed_and_its_step_alone() -> None:
    forwards, lone = Batches(echo, tokenizer(), 4, 64, 7), Batches(echo, tokenizer(), 4, 64, 7)
    every = [forwards[step] for step in range(20)]
    assert (lone[13].tokens == every[13].tokens).all() and (lone[13].learn == every[13].learn).all()
    assert any(a.tokens.shape != b.tokens.shape or (a.tokens != b.tokens).any() for a, b in pairwise(every))
    other = Batches(echo, tokenizer(), 4, 64, 8)[0]
    assert other.tokens.shape != every[0].tokens.shape or (other.tokens != every[0].tokens).any()


def test_only_what_is_to_be_learned_is_marked_and_padding_is_not() -> None:
    row = encode(tokenizer(), [Piece("ab>", learn=False), Piece(f"ab\n{END}")])
    assert [learn for _, learn in row] == [False] * 3 + [True] * 4
    assert row[-1] == (1, True), "the end token"
    assert [token for token, _ in row[:2]] == [token for token, _ in row[3:5]]
    batch = Batches(echo, tokenizer(), 4, 64, 1)[0]
    lengths = (batch.tokens == 1).argmax(1)
    assert all(not learn[length + 1 :].any() for learn, length in zip(batch.learn, lengths, strict=True))
    assert batch.learn.any(1).all() and batch.tokens.dtype == np.int64


def test_a_lesson_that_is_too_long_and_an_end_that_is_not_there() -> None:
    with pytest.raises(ContextExceeded, match="longer one"):
        Batches(echo, tokenizer(), 4, 8, 1)[0]
    with pytest.raises(InvalidRequest, match="no end token"):
        encode(Tokenizer(VOCABULARY.core()), echo(Random(1)))


def test_a_result_is_made_once_and_kept_under_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    made: list[Path] = []

    def make(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)

    assert kept(recipe(), make) == kept(recipe(), make) == tmp_path / "trained" / recipe().digest
    assert len(made) == 1
    with pytest.raises(HeadraceError):
        kept(recipe(seed=9), lambda folder: (_ for _ in ()).throw(HeadraceError("no")))
    kept(recipe(seed=9), make)
    assert len(made) == 2, "a failed attempt leaves nothing that counts as a result"


def test_two_processes_train_one_recipe_once(tmp_path: Path) -> None:
    code = (
        "import time\nfrom adapt.small import recipe\nfrom headrace.adapt.kept import kept\n"
        "def make(folder):\n    time.sleep(0.5)\n    folder.mkdir()\n    print('made')\n"
        "kept(recipe(), make)\n"
    )
    environment = {"HEADRACE_CACHE": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    assert sorted(process.communicate()[0] for process in both) == ["", "made\n"]


def test_what_needs_no_torch_loads_none() -> None:
    names = "recipe lesson batches vocabulary folder kept head report".split()
    code = f"import sys\nfor n in {names}: __import__('headrace.adapt.' + n)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
