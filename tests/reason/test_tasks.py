"""Tasks: golds that are read and graded, questions that stay the same, one sentence for what cannot be had."""

from __future__ import annotations

import json

import pytest

from headrace.reason.answers import Number
from headrace.reason.tasks.arith import problems, split_of
from headrace.reason.tasks.gsm8k import QUESTIONS, gsm8k, gsm8k_file
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.registry import KINDS, items
from headrace.spec.errors import InvalidRequest, ModelFileError

FAMILIES = (
    "basic_arithmetic",
    "chain_sum",
    "count_bits",
    "family_relationships",
    "gcd",
    "gsm_symbolic",
    "knights_knaves",
    "leg_counting",
    "number_sorting",
    "spell_backward",
    "syllogism",
    "word_sorting",
)


@pytest.fixture(scope="module")
def grade_school() -> list[Item]:
    try:
        return gsm8k(QUESTIONS)
    except ModelFileError as error:
        pytest.skip(f"the questions cannot be had here: {error}")


def test_every_worked_answer_of_gsm8k_is_graded_right(grade_school: list[Item]) -> None:
    worked = {json.loads(line)["question"]: json.loads(line)["answer"] for line in gsm8k_file().open(encoding="utf-8")}
    assert len(grade_school) == QUESTIONS == len({item.id for item in grade_school})
    for item in grade_school:
        (solution,) = (worked[q] for q in worked if item.task.question.startswith(q.strip()))
        answer = Number().extract(solution)
        assert answer is not None and item.verdict(answer) == "right"
        assert item.verdict(str(int(float(answer)) + 1)) == "wrong"
        assert not item.task.meta


def test_a_seed_shuffles_and_a_count_only_cuts(grade_school: list[Item]) -> None:
    assert [item.id for item in gsm8k(7)] == [item.id for item in grade_school[:7]]
    assert [item.id for item in gsm8k(7, seed=1)] != [item.id for item in gsm8k(7)]
    with pytest.raises(InvalidRequest, match="1319 questions"):
        gsm8k(QUESTIONS + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_generators_own_answers_are_graded_right(family: str) -> None:
    pytest.importorskip("reasoning_gym", reason="the extra headrace[gym] is not installed")
    few, more = items(f"gym:{family}", 3, 5), items(f"gym:{family}", 6, 5)
    assert [(i.id, i.task.question, i.gold) for i in few] == [(i.id, i.task.question, i.gold) for i in more[:3]]
    assert len({item.id for item in more}) == 6
    for item in more:
        assert item.gold is not None and not item.task.meta
        answer = item.task.answers.extract(f"First this.\nThen that.\nAnswer: {item.gold}")
        assert answer is not None and item.verdict(answer) == "right"
        assert item.verdict("none of these") == "wrong"


def test_settings_are_the_difficulty() -> None:
    pytest.importorskip("reasoning_gym", reason="the extra headrace[gym] is not installed")
    easy = items("gym:chain_sum(min_terms=2, max_terms=2, min_digits=1, max_digits=1)", 4)
    assert all(len(item.task.question) <= len(items("gym:chain_sum", 1)[0].task.question) + 40 for item in easy)
    assert all("max_digits=1" in item.id for item in easy)


@pytest.mark.parametrize("family", ["sums", "words"])
def test_arith_is_graded_by_its_oracle_and_hides_it(family: str) -> None:
    few, more = items(f"arith:{family}(steps=3)", 4, 2), items(f"arith:{family}(steps=3)", 9, 2)
    assert [item.id for item in few] == [item.id for item in more[:4]]
    known = {problem.question: problem for problem in problems(family, 3, 9, 2)}  # type: ignore[arg-type]
    for item in more:
        problem = known[item.task.question]
        text = "\n".join(problem.lines)
        answer = item.task.answers.extract(text)
        assert answer is not None and item.verdict(answer) == "right" and not item.task.meta
        assert item.verdict(str(problem.answer + 1)) == "wrong"
        assert item.so_far is not None and item.so_far(problem.lines[0] + "\n") == 1
        assert item.so_far("1+1=3\n" + text) == 0


REFUSED = {
    "arith": "as in arith:NAME; give one of sums, words",
    "arith:products": "Family 'products' is unknown",
    "arith:sums(steps=99)": "steps is 99",
    "arith:sums(split='train')": "split is 'train'; give eval, or tune to train a probe",
    "arith:sums(hard=True)": r"does not take these settings \(no hard, only steps, largest, split\); correct them",
    "arith:sums(seed=2)": "no seed, only",
    "reader:worlds(depth='x')": r"does not take these settings \(a value is of the wrong kind\)",
    "reader": "as in reader:NAME; give one of lettered, odd, deduction, worlds",
    "reader:riddles": "Family 'riddles' is unknown",
    "reader:worlds(depth=9)": "depth is 9",
    "reader:odd(depth=2)": "reader:odd has no depth; leave it out",
    "reader:odd(split='train')": "split is 'train'; give eval",
    "reader:odd(wording=1)": "does not take these settings",
    "gsm9": "no task 'gsm9'; give one of gsm8k",
    "gsm8k:hard": "no families",
    "gsm8k(count=3)": "no settings",
    "gym": "as in gym:NAME; give one of .*leg_counting",
    "gym:legs": "no generator 'legs'",
    "gym:gcd(3)": "cannot be read",
    "gym:gcd(min_value=)": "cannot be read",
    "gym:gcd(least=3)": "does not take these settings",
    "gym:gcd(min_value=-5)": "does not take these settings",
    "gym:gcd(min_value=open('x'))": "cannot be read",
}


def test_questions_for_probes_are_no_questions_of_an_evaluation() -> None:
    tune, evaluated = items("arith:sums(steps=3, split='tune')", 20), items("arith:sums(steps=3)", 20)
    assert {split_of(item.task.question) for item in tune} == {"tune"}
    assert {split_of(item.task.question) for item in evaluated} == {"eval"}
    assert not {item.id for item in tune} & {item.id for item in evaluated}


@pytest.mark.parametrize("spec", REFUSED)
def test_what_is_no_task_is_refused_in_a_sentence(spec: str) -> None:
    if spec.startswith("gym"):
        pytest.importorskip("reasoning_gym", reason="the extra headrace[gym] is not installed")
    with pytest.raises(InvalidRequest, match=REFUSED[spec]):
        items(spec, 2)


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'headrace\[gym\]'"):
        items("gym:gcd", 1)
    assert set(KINDS) == {"gsm8k", "gym", "arith", "reader", "lettered", "sets", "worlds"}


STRUCTURED = {
    "lettered": {"choices", "examples"},
    "sets:odd": {"choices", "think"},
    "sets:invented(wording=2)": {"choices", "think"},
    "sets:deduction": {"choices", "think"},
    "worlds": {"rules"},
    "reader:lettered": {"choices", "examples"},
    "reader:odd": {"choices", "think"},
    "reader:deduction": {"choices", "think"},
    "reader:worlds(depth=3, distractors=6)": {"rules"},
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_tasks_with_structure_bring_it_and_their_golds_are_right(name: str) -> None:
    asked = items(name, 12, seed=3)
    assert [one.task.question for one in items(name, 5, seed=3)] == [one.task.question for one in asked[:5]]
    assert len({one.id for one in asked}) == 12
    assert not {one.task.question for one in asked} & {one.task.question for one in items(name, 12, seed=4)}
    for one in asked:
        assert set(one.task.meta) == STRUCTURED[name] and one.gold is not None
        assert one.verdict(one.gold) == "right" and one.task.answers.extract(f"Answer: {one.gold}") == one.gold


@pytest.mark.parametrize("name", ["lettered", "reader:lettered"])
def test_worked_examples_are_none_of_the_questions(name: str) -> None:
    asked = items(name, 200)
    shown = {example.question for example in asked[0].task.meta["examples"].items}
    assert shown and not shown & {one.task.question for one in asked}


def test_a_set_or_wording_that_is_unknown_is_said_so() -> None:
    for name in ("sets:cards", "sets:odd(wording=9)"):
        with pytest.raises(InvalidRequest, match="sets"):
            items(name, 3)
