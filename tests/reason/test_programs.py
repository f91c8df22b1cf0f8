"""PROGRAMS: the interpreter against Python's own, on anything; tests shown and hidden; splits and lessons."""

from __future__ import annotations

import re
from itertools import product
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.adapt.lesson import END
from headrace.reason.tasks import programs
from headrace.reason.tasks.program_lessons import TOKENS, ProgramLessons, vocabulary
from headrace.reason.tasks.programs import (
    HIDDEN,
    INPUTS,
    SHOWN,
    Puzzle,
    draw,
    evaluate,
    parse,
    puzzles,
    question,
    values_of,
    written,
)
from headrace.spec.errors import InvalidRequest

trees = st.recursive(
    st.sampled_from(["x", *"0123456789"]),
    lambda inner: st.tuples(st.sampled_from("+-*%"), inner, inner),
    max_leaves=8,
)


def by_python(program: str, x: int) -> int | None:
    """None where Python divides by zero."""
    try:
        return eval(program, {"x": x})
    except ZeroDivisionError:
        return None


@given(trees, st.sampled_from(INPUTS))
def test_the_interpreter_agrees_with_python(tree: programs.Tree, x: int) -> None:
    program = written(tree)
    assume(len(program) <= programs.LONGEST)
    ours, theirs = evaluate(parse(program), x), by_python(program, x)
    if ours is not None and theirs is not None:
        assert ours == theirs
    assert evaluate(tree, x) in (ours, None) or ours is None, "what is written has the tree's values"


@given(st.text("x0123456789+-*%() f=\n", max_size=60))
def test_every_text_has_values_or_none(text: str) -> None:
    found = values_of(text)
    assert found is None or (len(found) == len(INPUTS) and max(map(abs, found)) <= programs.LARGEST)
    if found is not None:
        assert not set(text) & set(" f=\n") and len(text) <= programs.LONGEST


@pytest.mark.parametrize("text", ["", "x+", "()", "(x", "x)", "12", "x x", "2x", "-x", "x" + "+x" * 20, "9*9*9*9*9"])
def test_what_is_no_program(text: str) -> None:
    assert values_of(text) is None


def test_rank_order_and_remainders() -> None:
    def at(program: str, x: int) -> int:
        found = values_of(program)
        assert found is not None
        return found[x]

    assert at("2+x*3", 4) == 14 and at("9-x-1", 3) == 5 and at("9-(x-1)", 3) == 7
    assert at("7%x", 0) == 0 and at("7%x", 4) == 3 and at("(0-7)%x", 4) == 1 and at("x*3%4", 5) == 3


def test_a_program_that_passes_what_is_shown_may_fail_what_is_hidden() -> None:
    puzzle = Puzzle(question(tuple(INPUTS)), "x", tuple(INPUTS))
    assert puzzle.question == "f(0)=0, f(1)=1, f(2)=2, f(3)=3\n"
    assert puzzle.passes("x") and puzzle.passes("x+1-1")
    assert puzzle.passes("x%4", SHOWN) and not puzzle.passes("x%4", HIDDEN) and not puzzle.passes("x%4")
    assert not puzzle.passes("f(") and not puzzle.passes("x+1", SHOWN)


@pytest.mark.parametrize("operators", [2, 3, 4])
def test_questions_are_distinct_functions_of_their_split(operators: int) -> None:
    drawn = {split: puzzles(operators, 20, split=split) for split in ("eval", "tune", "train")}
    assert drawn["eval"] == puzzles(operators, 20) != puzzles(operators, 20, seed=1)
    assert puzzles(operators, 5) == drawn["eval"][:5]
    for split, found in drawn.items():
        assert len({puzzle.values for puzzle in found}) == 20 and {puzzle.split for puzzle in found} == {split}
        for puzzle in found:
            assert puzzle.passes(puzzle.program) and values_of(puzzle.program) == puzzle.values
            assert sum(puzzle.program.count(sign) for sign in "+-*%") == operators
            assert max(map(abs, puzzle.values)) <= programs.LARGEST_ASKED


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="operators is 9"):
        draw(Random(1), 9)
    with pytest.raises(InvalidRequest, match="not 30 functions of 1 operators"):
        puzzles(1, 30)


def test_lessons_are_programs_of_the_training_split() -> None:
    draw_lesson = ProgramLessons((2, 3))
    for seed in range(200):
        asked, said = draw_lesson(Random(seed))
        assert not asked.learn and said.learn and said.text.endswith(END)
        values = values_of(said.text.removesuffix(END))
        assert values is not None and question(values) == asked.text
        assert Puzzle(asked.text, "", values).split == "train"
        assert sum(said.text.count(sign) for sign in "+-*%") in (2, 3)


def test_the_vocabulary_spells_every_question() -> None:
    words = set(vocabulary())
    for shown in product((-99, 0, 7), repeat=4):
        text = question((*shown, 0, 0, 0, 0, 0, 0)) + "(x+1)*2%9-3"
        assert set(re.findall(TOKENS, text)) <= words
