"""Answers are read as a careful reader would read them, and equal values are one answer."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.reason.answers import Choice, Json, Line, Number, Text
from headrace.reason.answers.marks import LONGEST, told, whole_number

NUMBERS = {
    "1,234.50": "1234.5",
    "It is -3/4": "-0.75",
    r"\boxed{12}": "12",
    r"so $\boxed{\frac{3}{4}}$ of it": "0.75",
    r"\boxed{\dfrac{1}{3}}": "1/3",
    r"\boxed{x = 5}": "5",
    r"\boxed{12\text{ apples}}, not 13": "12",
    r"\boxed{\text{about } 12}": "12",
    r"\boxed{1{,}234}": "1234",
    r"\boxed{-\frac{1}{2}}": "-0.5",
    "#### 1,000": "1000",
    "####18 dollars": "18",
    "#### $45.00": "45",
    "$45.00": "45",
    "-$45.50": "-45.5",
    "-3": "-3",
    "x=-3": "-3",
    "\u22123": "-3",
    "10-3": "3",
    "(4)-3": "3",
    "5 - 3 is left": "3",
    ".5": "0.5",
    "45%": "45",
    r"45\%": "45",
    "The answer is 12.": "12",
    "The answer is: **12**": "12",
    "The final answer is \\(12\\).": "12",
    "The answer is $-3$": "-3",
    "THE ANSWER IS 12, as 3 of 4 said.": "12",
    "The answer would be 12. There are 3 steps.": "12",
    "The answer for part 1 is 12": "12",
    "Answer: 3 + 4 = 7": "7",
    "The answer is 5 x 3 = 15 apples (3 bags).": "15",
    "Answer:\n\n12": "12",
    "Answer: Janet has 16 eggs. She eats 3.\nShe makes 18": "18",
    "To answer this we need 3 steps. In all 12": "12",
    "The answer is not 5. It is 7": "7",
    "#### 5\nNo: #### 7": "7",
    "1 1/2 cups": "1.5",
    "1.5e3": "1500",
    r"3 \times 10^{8}": "300000000",
    "H2O weighs 18": "18",
    "007": "7",
    "-0": "0",
    "2.50": "2.5",
    "100": "100",
    "24/6": "4",
}


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_found_where_it_stands(text: str) -> None:
    assert Number().extract(text) == NUMBERS[text]


@pytest.mark.parametrize("text", ["", "none", "####", r"\boxed{}", "1/0", "9" * (LONGEST + 1), "H2O"])
def test_what_holds_no_number_is_unparsed(text: str) -> None:
    assert Number().extract(text) is None


def test_an_exponent_without_end_is_refused_at_once() -> None:
    assert Number().extract("1e999999999") in (None, "1")


FRACTIONS = st.fractions(max_denominator=999)


@given(FRACTIONS)
def test_every_value_is_written_in_one_way_and_read_back(value: Fraction) -> None:
    assert Fraction(told(value)) == value
    assert Number().extract(f"The answer is {told(value)}.") == told(value)
    assert whole_number(f"${told(value)}$") == value


@given(st.integers(-(10**9), 10**9), st.integers(0, 3))
def test_the_form_of_a_number_does_not_matter(value: int, zeros: int) -> None:
    forms = [f"{value}", f"{value:,}", f"{value}.{'0' * zeros}" if zeros else f"{value}", f"\\boxed{{{value}}}"]
    assert {Number().extract(f"#### {form}") for form in forms} == {str(value)}


@given(st.text(max_size=200))
def test_no_text_breaks_a_reader(text: str) -> None:
    for space in (Number(), Choice(), Json(), Line(), Text()):
        answer = space.extract(text)
        assert answer is None or (answer and space.equal(answer, answer))


CHOICES = {
    "The answer is (B).": "B",
    "Answer: C": "C",
    r"\boxed{\text{D}}": "D",
    "A car is faster, so C": "C",
    "answer: option B, because A is slow": "B",
    "Nothing fits": None,
}


@pytest.mark.parametrize("text", CHOICES)
def test_a_letter_is_found_where_it_stands(text: str) -> None:
    assert Choice().extract(text) == CHOICES[text]


LINES = {
    "It is so.\nAnswer: **mother**.": "mother",
    r"so \boxed{\text{Yes}}": "Yes",
    "Answer: a, b, c\nThat is all.": "a, b, c",
    "ziuqer": "ziuqer",
    "First this.\nThen that.": None,
    "Answer:": None,
    "Answer: `x`\nNo.\nAnswer: ": "x",
}


@pytest.mark.parametrize("text", LINES)
def test_a_line_is_found_where_it_stands(text: str) -> None:
    assert Line().extract(text) == LINES[text]


def test_a_line_has_no_case() -> None:
    assert Line().equal("Yes", "yes") and not Line().equal("Yes", "no")
