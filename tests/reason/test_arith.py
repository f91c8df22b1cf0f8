"""ARITH: the oracle against a second reading of the question, marks, splits and lessons."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.adapt.lesson import END
from headrace.reason.tasks import arith
from headrace.reason.tasks.arith import Problem, answer_of, draw, marks, problems, split_of
from headrace.reason.tasks.arith_lessons import TOKENS, ArithLessons, vocabulary
from headrace.spec.errors import InvalidRequest

drawn = st.builds(
    draw,
    st.integers(0, 10**6).map(Random),
    st.sampled_from(["sums", "words"]),
    st.integers(1, arith.MOST_STEPS),
    st.sampled_from([5, 9, 20, 49]),
)


def read(problem: Problem) -> int:
    """The answer by the question's text alone."""
    question = problem.question
    if problem.family == "sums":
        return sum(int(number) for number in re.findall(r"[+-]?\d+", question))
    name = re.search(r"has (\w+)\?", question)[1]
    things = re.search(r"How many (\w+)", question)[1]
    value = 0
    for sentence in re.findall(r"[^.?]+\.", question):
        number = int(re.search(r"\d+", sentence)[0])
        words = sentence.rstrip(".").split()
        if "times" in words:
            value *= number
        elif "has" in words:
            value += number * (things in words)
        elif "gives" in words:
            value += number if words[2] == name else -number
        else:
            value += number if words[1] in ("buys", "finds") else -number
    return value


@given(drawn)
def test_the_oracle_agrees_with_a_second_reading(problem: Problem) -> None:
    assert problem.answer == read(problem)
    assert all(0 <= value <= arith.MOST_VALUE for value in problem.states)
    assert len(problem.states) == len(problem.operations) + 1 == len(problem.lines)
    for line in problem.lines[:-1]:
        left, right = line.split("=")
        assert eval(left) == int(right)
    assert problem.question.endswith("\n") and problem.question.count("\n") == 1


@given(drawn)
def test_a_right_solution_is_marked_right_at_every_line(problem: Problem) -> None:
    text = "\n".join(problem.lines)
    assert marks(problem, text) == marks(problem, text + "\n") == (True,) * len(problem.lines)
    assert answer_of(text) == problem.answer


@given(drawn, st.data())
def test_from_the_first_wrong_line_on_all_are_marked_wrong(problem: Problem, data: st.DataObject) -> None:
    where = data.draw(st.integers(0, len(problem.lines) - 1))
    lines = list(problem.lines)
    lines[where] = data.draw(st.sampled_from([lines[where] + "0", "", "1+1=2", lines[where][:-1]]))
    right = tuple(number < where for number in range(len(lines)))
    if lines[where] != problem.lines[where]:
        assert marks(problem, "\n".join(lines)) == (right[:-1] if lines[-1] == "" else right)


def test_marks_and_answers_of_odd_texts() -> None:
    problem = Problem("sums", "1+2=\n", 1, (("+", 2),))
    assert marks(problem, "") == () and marks(problem, "\n") == (False,)
    assert marks(problem, "1+2=3\nAnswer: 3\nAnswer: 3") == (True, True, False)
    assert marks(problem, "Answer: 3") == (False,), "a step was left out"
    assert answer_of("Answer: 4\nAnswer: -3") == -3 and answer_of("3") is None


@given(st.sampled_from(["sums", "words"]), st.integers(2, 5), st.integers(0, 50))
def test_problems_are_distinct_repeatable_and_of_their_split(family: arith.Family, steps: int, seed: int) -> None:
    splits = {split: problems(family, steps, 6, seed, split) for split in ("train", "tune", "eval")}
    for split, found in splits.items():
        assert found == problems(family, steps, 6, seed, split) and len({p.question for p in found}) == 6
        assert all(p.split == split == split_of(p.question) for p in found)
        assert all(len(p.operations) == steps and p.family == family for p in found)
    assert problems(family, steps, 6, seed + 1) != splits["eval"]


def test_settings_out_of_range_are_refused() -> None:
    for change in ({"family": "logic"}, {"steps": 0}, {"steps": 99}, {"largest": 0}, {"largest": 50}):
        with pytest.raises(InvalidRequest):
            draw(Random(1), **({"family": "sums", "steps": 2} | change))
    with pytest.raises(InvalidRequest, match="ask for fewer"):
        problems("sums", 1, 50, largest=3)


LESSONS = st.builds(
    ArithLessons,
    words=st.sampled_from([0.0, 0.5, 1.0]),
    mistake=st.sampled_from([0.0, 0.5]),
    check=st.sampled_from([0.0, 0.5, 1.0]),
)


@given(LESSONS, st.integers(0, 10**6))
def test_lessons_speak_the_vocabulary_and_never_of_held_out_questions(lessons: ArithLessons, seed: int) -> None:
    lesson = lessons(Random(seed))
    assert lesson == lessons(Random(seed))
    text = "".join(piece.text for piece in lesson)
    assert set(re.findall(TOKENS, text.replace(END, ""))) <= set(vocabulary())
    assert split_of(lesson[0].text) == "train" and not lesson[0].learn


@given(st.integers(0, 10**6))
def test_lessons_without_mistakes_are_right_and_end(seed: int) -> None:
    _, solution = ArithLessons(mistake=0.0, check=0.0)(Random(seed))
    assert solution.learn and solution.text.endswith(END)
    *steps, last = solution.text.rstrip(END).split("\n")
    assert all(eval(step.split("=")[0]) == int(step.split("=")[1]) for step in steps)
    assert answer_of(last) == int(steps[-1].split("=")[1])


@given(st.integers(0, 10**6))
def test_a_verdict_says_whether_the_lines_before_it_follow(seed: int) -> None:
    _, solution, asked, verdict = ArithLessons(mistake=0.3, check=1.0)(Random(seed))
    steps = [line for line in solution.text.strip().split("\n") if "=" in line]
    right = all(eval(step.split("=")[0]) == int(step.split("=")[1]) for step in steps)
    assert verdict.text == ("yes" if right else "no") and verdict.learn
    assert asked.text.endswith(arith.CHECK) and not asked.learn
    assert (solution.text + asked.text).replace(END, "").endswith("\n" + arith.CHECK)


def test_mistakes_are_as_frequent_as_the_recipe_says() -> None:
    wrong = total = 0
    for seed in range(1500):
        for step in ArithLessons(check=0.0, mistake=0.1)(Random(seed))[1].text.split("\n"):
            if "=" in step:
                total += 1
                wrong += eval(step.split("=")[0]) != int(step.split("=")[1])
    assert 0.08 < wrong / total < 0.12
