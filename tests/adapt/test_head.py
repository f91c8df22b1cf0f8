"""Value heads: they separate what can be separated, and run without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapt.small import recipe
from headrace.adapt.head import WEIGHTS, Head, auc, read_states
from headrace.adapt.recipe import ValueHead
from headrace.evidence.stage import Stage
from headrace.spec.errors import InvalidRequest, ModelFileError

HIDDEN = 24


def points(ring: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """States at an odd scale and place, labelled by one direction, or by their distance from the middle."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((800, 4 if ring else HIDDEN)).astype(np.float32)
    labels = (x[:, 0] ** 2 + x[:, 1] ** 2 > 1.4) if ring else x @ rng.standard_normal(HIDDEN) > 0
    return (3 + 50 * x).astype(np.float32), labels


def train(states: np.ndarray, labels: np.ndarray, folder: Path, width: int = 0, **changes: object) -> Head:
    pytest.importorskip("torch", reason="training needs torch")
    from headrace.adapt.head_training import train_head

    made = recipe(ValueHead("base", "hidden:-2", width), **({"steps": 300, "batch": 64} | changes))
    return train_head(made, states, labels, folder)


def test_a_linear_head_separates_what_a_line_separates(tmp_path: Path) -> None:
    states, labels = points()
    head = train(states[:500], labels[:500], tmp_path / "head")
    assert auc(head(states[500:]), labels[500:]) > 0.98
    assert head(states).min() >= 0 and head(states).max() <= 1
    shuffled = np.random.default_rng(1).permutation(labels[:500])
    assert auc(train(states[:500], shuffled, tmp_path / "other")(states[500:]), labels[500:]) < 0.8


def test_a_hidden_layer_separates_what_no_line_does(tmp_path: Path) -> None:
    states, labels = points(ring=True)
    line = train(states[:500], labels[:500], tmp_path / "line")
    ring = train(states[:500], labels[:500], tmp_path / "ring", width=32)
    assert auc(line(states[500:]), labels[500:]) < 0.65 < 0.8 < auc(ring(states[500:]), labels[500:])


def test_a_head_is_read_back_without_torch(tmp_path: Path) -> None:
    states, labels = points()
    head = train(states, labels, tmp_path / "head", width=8, steps=20)
    back = Head.load(tmp_path / "head")
    assert (back.state, back.base, back.hidden) == ("hidden:-2", "base", HIDDEN)
    assert np.array_equal(back(states), head(states))
    load = f"Head.load(Path({str(tmp_path / 'head')!r}))"
    code = f"import sys\nfrom pathlib import Path\nfrom headrace.adapt.head import Head\n{load}"
    subprocess.run(
        [sys.executable, "-c", f"{code}\nassert 'torch' not in sys.modules"],
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    states, labels = points()
    head = train(states, labels, tmp_path / "head", steps=2)
    with pytest.raises(InvalidRequest, match="width 24 and these have 23"):
        head(states[:, 1:])
    with pytest.raises(InvalidRequest, match="do not fit"):
        train(states, labels[1:], tmp_path / "other")
    with pytest.raises(InvalidRequest, match="outside 0 to 1"):
        train(states, 2.0 * labels, tmp_path / "other")
    (tmp_path / "head" / WEIGHTS).write_bytes(b"cut")
    with pytest.raises(ModelFileError, match="no whole value head"):
        Head.load(tmp_path / "head")


def test_states_come_through_the_engine() -> None:
    with Stage.tiny() as stage, stage.engine() as engine:
        prompts = [[1, 2, 3], [4, 5], [1, 2, 3, 4]]
        states = read_states(engine, prompts, "hidden:1")
        assert states.shape == (3, engine.spec.hidden) and states.dtype == np.float32
        with engine.open_now(prompts[1]) as sequence:
            assert np.array_equal(sequence.read("hidden:1").result(), states[1])
        assert read_states(engine, []).shape == (0, engine.spec.hidden)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_auc_is_the_share_of_pairs_in_order(found: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([s for s, _ in found]), np.array([label for _, label in found])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    assert np.isclose(auc(scores, labels), np.mean(pairs) if pairs else np.nan, equal_nan=True)
