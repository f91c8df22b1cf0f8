"""Mathematical answers: equal values are one answer, whatever their form, and no expression holds anybody up."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.reason.answers import Mathematics, answer_space
from headrace.reason.answers.killable import Workers
from headrace.reason.answers.mathematics import WORKER
from headrace.reason.choose import groups
from headrace.spec.errors import InvalidRequest

pytest.importorskip("math_verify", reason="the extra headrace[reason] is not installed")
SPACE = Mathematics()

READ = {
    r"\boxed{\frac{3}{4}}": "0.75",
    r"So $\boxed{2\sqrt{3}}$.": r"2\sqrt{3}",
    r"The answer is $x^2+1$.": "x^2+1",
    r"\boxed{x=5}": "5",
    r"\boxed{45\%}": "45",
    r"\boxed{12 \text{ apples}}": "12",
    r"Answer: (1,2)": "(1,2)",
    r"The answer is 12 apples": "12",
    r"#### $2\sqrt{3}$": r"2\sqrt{3}",
    r"\boxed{5} no, \boxed{}": "5",
    r"I think it is 1/2 then.": "0.5",
    "Nobody knows.": None,
    r"\boxed{": None,
}


@pytest.mark.parametrize("text", READ)
def test_an_answer_is_read(text: str) -> None:
    assert SPACE.extract(text) == READ[text]


SAME = [
    (r"\frac{1}{2}", "0.5"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("x<5", r"(-\infty,5)"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("1,234", "1234.0"),
]
OTHER = [("1/3", "0.333333"), (r"\sqrt{2}", "1.4"), ("x+1", "x-1"), ("(1,2)", "(2,1)"), ("45", "0.45")]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_equal_values_are_equal_in_both_directions(a: str, b: str) -> None:
    assert SPACE.equal(a, b) and SPACE.equal(b, a)


@pytest.mark.parametrize(("a", "b"), OTHER)
def test_other_values_are_not(a: str, b: str) -> None:
    assert not SPACE.equal(a, b) and not SPACE.equal(b, a)


WHOLE = st.integers(-20, 20)
FORMS = st.one_of(
    WHOLE.map(str),
    st.tuples(WHOLE, st.integers(1, 9)).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
    st.tuples(WHOLE, st.integers(1, 9)).map(lambda p: f"{p[0] / p[1]:.3f}"),
    st.tuples(st.integers(1, 4), st.integers(2, 12)).map(lambda p: rf"{p[0]}\sqrt{{{p[1]}}}"),
    st.tuples(WHOLE, WHOLE).map(lambda p: f"x^2+({p[0]})x+({p[1]})"),
    st.tuples(WHOLE, WHOLE).map(lambda p: f"(x+({p[0]}))(x+({p[1]}))"),
    WHOLE.map(lambda n: f"x<{n}"),
    WHOLE.map(lambda n: rf"(-\infty,{n})"),
    st.lists(WHOLE, min_size=1, max_size=3).map(lambda found: rf"\{{{','.join(map(str, found))}\}}"),
)


@settings(max_examples=30)
@given(st.lists(FORMS, min_size=2, max_size=4))
def test_groups_are_classes_of_an_equivalence(answers: list[str]) -> None:
    are_classes(answers)


@pytest.mark.prove
@settings(max_examples=500, deadline=None)
@given(st.lists(FORMS, min_size=2, max_size=4))
def test_groups_are_classes_of_an_equivalence_full(answers: list[str]) -> None:
    """P11."""
    are_classes(answers)


def are_classes(answers: list[str]) -> None:
    """Reflexive, symmetric and transitive: each is in one class with itself, in whatever order they come."""
    found = {tuple(sorted(classes(list(order)))) for order in permutations([*answers, answers[0]])}
    assert len(found) == 1
    for a in answers:
        assert SPACE.equal(a, a)
        for b in answers:
            assert SPACE.equal(a, b) == SPACE.equal(b, a)
            assert not SPACE.equal(a, b) or any(a in group and b in group for group in classes(answers))


def classes(answers: list[str]) -> list[tuple[str, ...]]:
    leads = groups(answers, SPACE)
    return [tuple(sorted(a for a, other in zip(answers, leads, strict=True) if other == lead)) for lead in set(leads)]


@settings(max_examples=20)
@given(FORMS)
def test_what_is_read_equals_what_was_written(form: str) -> None:
    answer = SPACE.extract(rf"so \boxed{{{form}}}.")
    assert answer is not None and SPACE.equal(answer, form)


HANGS = [("(10^8)!", "5"), ("x^{1000000}+1", "(x+1)^{1000000}")]


def test_a_comparison_without_end_is_not_equal_and_known_as_undecided() -> None:
    workers = Workers(WORKER, seconds=1.0)
    space = Mathematics(workers)
    for a, b in HANGS:
        assert not space.equal(a, b) and not space.equal(b, a)
        assert space.undecided(a, b) and space.undecided(b, a)
    assert workers.killed == len(HANGS), "asked once each, the second time from memory"
    assert space.equal(r"2\sqrt{3}", r"\sqrt{12}") and not space.undecided(r"2\sqrt{3}", r"\sqrt{12}")
    assert groups(["(10^8)!", "5", "5.0"], space) == [0, 1, 1]
    workers.close()


def test_from_threads_and_an_event_loop_beside_one_that_hangs() -> None:
    a_thread_that_hangs_holds_no_other()


@pytest.mark.prove
def test_a_thread_that_hangs_holds_no_other_full() -> None:
    """P11."""
    for _ in range(10):
        a_thread_that_hangs_holds_no_other()


def a_thread_that_hangs_holds_no_other() -> None:
    workers = Workers(WORKER, seconds=1.0)
    space = Mathematics(workers)
    found: dict[int, bool] = {}

    def compare(k: int) -> None:
        found[k] = space.equal(rf"{k}\sqrt{{3}}", rf"\sqrt{{{3 * k * k}}}") if k else space.equal(*HANGS[0])

    threads = [threading.Thread(target=compare, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: False} | {k: True for k in range(1, 6)}

    async def inside() -> list[bool]:
        return list(await asyncio.gather(*(asyncio.to_thread(space.equal, "x+1", "1+x") for _ in range(3))))

    assert asyncio.run(inside()) == [True] * 3
    workers.close()


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "headrace.reason.answers.mathematics.find_spec", lambda name: None if name == "math_verify" else real(name)
    )
    with pytest.raises(InvalidRequest, match=r"pip install 'headrace\[reason\]'"):
        answer_space("math")
