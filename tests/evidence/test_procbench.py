"""ProcBench: gold against oracle, mutants at their step, scores on hand-worked cases, answers as models write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.evidence.procbench import (
    FAMILIES,
    answer,
    conversation,
    grade,
    interpret,
    make_task,
    normalise,
    question,
    read_answer,
)
from headrace.evidence.procbench import score as score_of
from headrace.spec.errors import InvalidRequest

names = st.sampled_from(sorted(FAMILIES))
lengths = st.integers(1, 40)
seeds = st.integers(0, 10**6)


@given(names, lengths, seeds)
@settings(max_examples=300, deadline=None)
def test_oracle_scores_full_marks(name: str, length: int, seed: int) -> None:
    family = FAMILIES[name]
    task = make_task(family, length, seed)
    assert len(task.gold) == length
    marks = grade(task, answer(interpret(family, task.given)))
    assert (marks.prefix_length, marks.prefix_accuracy) == (length, 1.0)
    assert marks.sequential_match and marks.final_match


@given(names, lengths, seeds, st.data())
@settings(max_examples=300, deadline=None)
def test_off_by_one_fails_at_exactly_its_step(name: str, length: int, seed: int, data: st.DataObject) -> None:
    family = FAMILIES[name]
    task = make_task(family, length, seed)
    slip = data.draw(st.integers(1, length))
    marks = grade(task, answer(interpret(family, task.given, slip)))
    assert marks.prefix_length == slip - 1
    assert marks.prefix_accuracy == (slip - 1) / length
    assert not marks.sequential_match


def test_a_mutated_last_step_loses_the_final_match() -> None:
    for family in FAMILIES.values():
        task = make_task(family, 6, 3)
        assert not grade(task, answer(interpret(family, task.given, 6))).final_match, family.name


def test_families_are_many_and_tasks_repeat() -> None:
    assert len(FAMILIES) >= 12
    for family in FAMILIES.values():
        assert make_task(family, 7, 11) == make_task(family, 7, 11)
        assert len({make_task(family, 9, seed).given for seed in range(20)}) >= 15, family.name
        task, example = make_task(family, 7, 0), make_task(family, 2, 1)
        assert "There are 7 steps." in question(task)
        turns = conversation(task, example)
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert grade(example, turns[1]["content"]).sequential_match


def test_length_out_of_range_is_refused() -> None:
    for length in (0, 129):
        with pytest.raises(InvalidRequest):
            make_task(FAMILIES["gcd"], length, 0)


@pytest.mark.parametrize(
    ("name", "text", "states"),
    [
        ("running_sum", "Start: 5\nNumbers: 1, 2, 9", ["6", "8", "17"]),
        ("clock", "Start: 10\nMoves: +3, -5", ["1", "8"]),
        ("gcd", "Pair: 48, 18\nSteps: 3", ["18, 12", "12, 6", "6, 0"]),
        ("digits", "Number: 11\nBase: 2\nSteps: 4", ["5, 1", "2, 1", "1, 0", "0, 1"]),
        ("walk", "Start: 1, 1\nMoves: N2, W3", ["1, 3", "-2, 3"]),
        ("collatz", "Start: 3\nSteps: 3", ["10", "5", "16"]),
        ("rotate", "List: 1, 2, 3\nTurns: 1, 2", ["2, 3, 1", "1, 2, 3"]),
        ("swap", "List: 7, 8, 9\nSwaps: 1 3; 2 3", ["9, 8, 7", "9, 7, 8"]),
        ("sort", "List: 3, 1, 2\nSteps: 2", ["1, 3, 2", "1, 2, 3"]),
        ("edit", "List: 4, 5\nEdits: insert 9 2; delete 1", ["4, 9, 5", "9, 5"]),
        ("stack", "Program: push 2; push 3; swap; add; pop", ["2", "2, 3", "3, 2", "5", "empty"]),
        ("queue", "Queue: 1, 2\nEvents: join 3; leave", ["1, 2, 3", "2, 3"]),
        ("replace", "Text: abca\nReplacements: a>e c>b", ["ebca", "ebba"]),
        ("shift", "Text: xyz\nShifts: 2, 1", ["zab", "abc"]),
        ("automaton", "Table: a0>b a1>a b0>a b1>b\nStart: a\nInput: 011", ["b", "b", "b"]),
        ("cells", "Cells: 00100\nSteps: 2", ["01110", "11001"]),
        ("brackets", "Brackets: ([])", ["(", "([", "(", "empty"]),
        ("runs", "Text: aab", ["a1", "a2", "a2b1"]),
    ],
)
def test_oracle_on_hand_worked_questions(name: str, text: str, states: list[str]) -> None:
    assert interpret(FAMILIES[name], text) == states


@pytest.mark.parametrize(
    ("gold", "predicted", "prefix", "accuracy", "sequential", "final"),
    [
        (["1", "2", "3"], ["1", "2", "3"], 3, 1.0, True, True),
        (["1", "2", "3", "4"], ["1", "9", "3", "4"], 1, 0.25, False, True),
        (["1", "2"], ["1", "2", "3"], 2, 2 / 3, False, False),
        (["1", "2", "3"], ["1"], 1, 1 / 3, False, False),
        (["1", "2"], [], 0, 0.0, False, False),
        (["1", "2", "3"], ["1", None, "3"], 1, 1 / 3, False, True),
    ],
)
def test_scores_of_hand_worked_cases(
    gold: list[str], predicted: list[str | None], prefix: int, accuracy: float, sequential: bool, final: bool
) -> None:
    marks = score_of(gold, predicted)
    assert marks.prefix_length == prefix
    assert marks.prefix_accuracy == pytest.approx(accuracy)
    assert (marks.sequential_match, marks.final_match) == (sequential, final)


@pytest.mark.parametrize(
    "text",
    [
        "Step 1: 3, 1\nStep 2: 1, 3",
        "Sure!\n\n**Step 1:** [3, 1]\n**Step 2:** [1, 3]\nDone.",
        "- step 1) 3 1\n- step 2) 1 3",
        "Step 2: 1,3\nStep 1: 3,1",
        "> Step 1 -> The list is (3, 1).\n> Step 2 -> The list is (1, 3).",
        "STATE AFTER STEP 1: `3, 1`\nstate after step 2: `1, 3`",
        "Step 1: 3, 1\nStep 2: 1, 3\nStep 2: 8, 8\nStep 99: 5",
    ],
)
def test_answers_are_read_as_models_write_them(text: str) -> None:
    assert read_answer(text, "numbers") == ["3,1", "1,3"]


def test_answers_that_say_nothing_read_as_nothing() -> None:
    assert read_answer("", "text") == []
    assert read_answer("I cannot do this. Step by step, it is hard.", "numbers") == []
    assert read_answer("Step 2: b", "text") == [None, "b"]
    assert read_answer("Step 1:\nStep 2: x", "text") == ["", "x"]


@given(st.text(max_size=200), st.sampled_from(["numbers", "text"]))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_without_error(text: str, form: str) -> None:
    assert len(read_answer("Step 1: 1\n" + text, form)) <= 4 * (text.count("\n") + 200)  # type: ignore[arg-type]


def test_normal_forms() -> None:
    assert normalise("x = 3, y = -4", "numbers") == "3,-4"
    assert normalise("[]", "numbers") == normalise("Empty.", "numbers") == normalise("(empty)", "text") == "empty"
    assert normalise('"0 1 1"', "text") == "011"
    assert normalise("([", "text") == "(["
    assert normalise("007", "numbers") == "7"
