"""Operators keep strictly to their form, are paid for with their prompts, and stand in the trace with their hash."""

from __future__ import annotations

import asyncio
import hashlib
from importlib.resources import files

import pytest

from headrace.evidence.scripted import END, Chances, says, scripted_engine
from headrace.reason.answers import Number
from headrace.reason.operators import cards, find_card, reading
from headrace.reason.solve import Order, Result, solve
from headrace.reason.task import Task
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.sampling import Sampling, Stop

TASK = Task("6 * 7 = ?\n", Number(), ending=Stop(tokens=40), chat=False)


def solved(chances: Chances, strategy: str, task: Task = TASK, context: int = 2048, **how) -> Result:
    with scripted_engine(chances, context=context) as engine:
        found = asyncio.run(solve(engine, task, Order(strategy, seed=3, sampling=Sampling(), **how)))
        engine.check()
        assert engine.stats()["open_sequences"] == 0
        return found


def used(result: Result) -> list[tuple[str, str]]:
    return [(event.data["name"], event.data["outcome"]) for event in result.trace.of("operator")]


def test_cards_are_data_with_version_and_hash() -> None:
    assert set(cards()) == {"critique", "judge", "rank", "fuse", "decompose", "plan", "listing", "yes_no"}
    for name, card in cards().items():
        raw = files("headrace.reason.operators").joinpath(f"{name}.toml").read_bytes()
        assert card.hash == hashlib.sha256(raw).hexdigest()[:16] and card.version >= 1 and card.form
    with pytest.raises(InvalidRequest, match="choose one of"):
        find_card("guess")


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 0.7), (" 10 ", 1.0), ("Rating: 0/10.", 0.0), ("11", None), ("7 or 8", None), ("good", None), ("", None)],
)
def test_ratings_are_read_or_not_at_all(text: str, value: float | None) -> None:
    assert reading.rating(text) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2, 1, 3", [1, 0, 2]),
        ("3>1>2.", [2, 0, 1]),
        ("1, 2", None),
        ("1, 1, 2", None),
        ("2, 1, 4", None),
        ("Best: 2", None),
    ],
)
def test_orders_name_every_number_once(text: str, found: list[int] | None) -> None:
    assert reading.order(text, 3) == found


def test_lists_and_faults() -> None:
    assert reading.items("1. How many?\n2) And then?\n\n- Why?") == ["How many?", "And then?", "Why?"]
    assert reading.items("Sure! Here are some:\n1. How many?") is None and reading.items("") is None
    assert reading.words("Apple, pear ,plum.") == ["apple", "pear", "plum"] and reading.words("apple") is None
    assert reading.fault("No mistake.") == reading.fault("'no mistakes' here") == "" and reading.fault("  ") is None
    assert reading.fault("It adds 3 where 4 is given.") == "It adds 3 where 4 is given."


def first_answers(*answers: str) -> Chances:
    """Different answers by equal chance to the question itself; what operators say is given by cues behind it."""

    def chances(text: str) -> dict[str, float]:
        tail = text.rpartition(TASK.question)[2]
        going = [answer for answer in answers if answer.startswith(tail)]
        share = 1 / max(len(going), 1)
        letters: dict[str, float] = {}
        for answer in going:
            letter = answer[len(tail)] if len(tail) < len(answer) else END
            letters[letter] = letters.get(letter, 0) + share
        return letters or {END: 1.0}

    return chances


def either(*parts: tuple[str, Chances]) -> Chances:
    """The first whose cue the text has."""

    def chances(text: str):
        return next(part for cue, part in parts if cue in text)(text)

    return chances


def test_an_unreadable_rating_is_no_rating() -> None:
    """optillm reads 0.5 out of a rating that it cannot parse, which outbids an honest 3."""

    def rated(text: str):
        return says(("nothing else.\n", "3" if "\n41\n\nHow good" in text else "excellent"))(text)

    chances = either(("How good", rated), ("", first_answers("41", "42")))
    found = solved(chances, "rate(n=8)")
    by_answer = {candidate.answer: candidate.score for candidate in found.candidates}
    assert by_answer == {"41": 0.3, "42": None} and found.answer == "41"
    assert set(used(found)) == {("judge", "read"), ("judge", "unreadable")}


def test_confidence_is_no_evidence() -> None:
    """its_hub's filter weighs by the generator's own likelihood; here what it says most often is rated worst."""

    def rated(text: str):
        return says(("nothing else.\n", "9\n" if "\n42\n\nHow good" in text else "2\n"))(text)

    chances = either(("How good", rated), ("", first_answers("41", "41", "41", "41", "42")))
    assert solved(chances, "self_consistency(n=8)").answer == "41"
    assert solved(chances, "rate(n=8)").answer == "42"


def test_operators_over_many_candidates_share_their_steps() -> None:
    """dspy's attempts run one after another; four prompts here take no more engine steps than one."""

    def steps(n: int) -> int:
        told = either(("How good", says(("nothing else.\n", "7\n"))), ("", first_answers("42")))
        with scripted_engine(told) as engine:
            asyncio.run(solve(engine, TASK, Order(f"rate(n={n})", seed=3, sampling=Sampling())))
            return len(engine.events.recent())

    assert steps(4) <= steps(1) + 4


def test_ranking_follows_the_order_and_nothing_else() -> None:
    """its_hub compares what has no score by its length: here the longest answer is wrong and ranked last."""
    chances = either(
        ("Put the attempts", says(("2, 1, 3\n", "2, 1, 3\n"))), ("", first_answers("7", "8888888888", "9"))
    )
    found = solved(chances, "self_consistency(n=3) | rank(top=2)")
    assert found.answer == found.candidates[1].answer
    assert [candidate.weight for candidate in found.candidates] == [1, 1, 0]
    lost = either(
        ("Put the attempts", says(("2, 1, 3\n", "the long one\n"))), ("", first_answers("7", "7", "8888888888"))
    )
    vote = solved(lost, "self_consistency(n=9) | rank")
    assert used(vote) == [("rank", "unreadable")]
    assert vote.answer == solved(lost, "self_consistency(n=9)").answer


def test_a_pipeline_through_two_middle_layers_runs() -> None:
    """Archon's search cannot place a fuser between layers: its code fails there."""
    critic = says(("No mistake\n", "No mistake\n\n"))
    fuser = says(("complete answer.\n", "So 42"))
    ranker = says(("2, 1, 3\n", "2, 1, 3, 4, 5\n"))
    chances = either(
        ("Name the first", critic),
        ("Put the attempts", ranker),
        ("Weigh these", fuser),
        ("", first_answers("41", "43")),
    )
    found = solved(chances, "self_consistency(n=4) | critique | fuse | rank(top=2) | fuse")
    assert found.answer == "42" and [c.origin for c in found.candidates].count("fused") == 2
    assert {name for name, _ in used(found)} == {"critique", "fuse", "rank"}


def test_critique_sets_faulty_ones_aside_and_fuse_reads_it() -> None:
    def critic(text: str):
        said = "It is one too small.\n\n" if "\n41\n\nName" in text else "No mistake\n\n"
        return says(("No mistake\n", said))(text)

    seen: list[str] = []

    def fuser(text: str):
        seen.append(text)
        return says(("complete answer.\n", "42"))(text)

    chances = either(("Weigh these", fuser), ("Name the first", critic), ("", first_answers("41", "42")))
    found = solved(chances, "self_consistency(n=6) | critique")
    assert found.answer == "42" and {c.answer: c.weight for c in found.candidates} == {"41": 0.0, "42": 1.0}
    always = either(("Weigh these", fuser), ("Name the first", says(("No mistake\n", "Wrong.\n\n"))), ("", chances))
    solved(always, "self_consistency(n=2) | critique | fuse")
    assert "Critique of (1): Wrong." in seen[0]


@pytest.mark.parametrize(
    ("critique", "answers"),
    [("No mistake.", ["41"]), ("There is no mistake but the last line.", ["41", "42"]), ("It is 42.", ["41", "42"])],
)
def test_a_revision_ends_where_the_critic_finds_nothing_and_nowhere_else(critique: str, answers: list[str]) -> None:
    critic, reviser = says(("write 'No mistake'.", critique)), says(("complete answer.", "42"))
    chances = either(("A critique of it", reviser), ("Name the first", critic), ("", first_answers("41")))
    found = solved(chances, "critique_and_revise(rounds=1)")
    assert [candidate.answer for candidate in found.candidates] == answers


def test_every_token_of_an_operator_is_in_the_usage() -> None:
    """optillm's usage forgets the prompts of its sub-calls; ours has them to the token."""
    chances = either(("How good", says(("nothing else.\n", "7\n"))), ("", first_answers("42")))
    found = solved(chances, "rate(n=2)")
    card = find_card("judge").text(question=TASK.question, answer="42")
    assert found.usage["prompt"] == len(TASK.question) + 2 * len(card)
    assert found.usage["completion"] == 2 * len("42\0") + 2 * len("7\n")


def test_smaller_questions_are_answered_in_turn() -> None:
    chances = either(
        ("Do not answer yet", says(("nothing else.\n", "1. What is 6 * 6?\n2. What is 36 + 6?\n\n"))),
        ("the question at the top", says(("at the top.", "42"))),
        ("one sentence: What is 36", says(("What is 36 + 6?", "42"), ("6 * 6? 36", "It is 42."))),
        ("one sentence", says(("What is 6 * 6?", "36"))),
        ("", first_answers("40")),
    )
    found = solved(chances, "decompose")
    assert found.answer == "42" and found.candidates[0].origin == "decomposed"
    broken = either(("Do not answer yet", says(("nothing else.\n", "I would say 40\n\n"))), ("", first_answers("40")))
    direct = solved(broken, "decompose")
    assert direct.answer == "40" and used(direct) == [("decompose", "unreadable")]


def test_what_does_not_fit_the_context_is_no_error() -> None:
    chances = either(("Put the attempts", says(("2, 1, 3\n", "2, 1\n"))), ("", first_answers("7", "8")))
    found = solved(chances, "self_consistency(n=2) | rank", context=128)
    assert found.answer in ("7", "8") and used(found) == [("rank", "context")]


def test_a_budget_that_ends_before_an_operator_keeps_the_vote() -> None:
    chances = either(("Put the attempts", says(("2, 1, 3\n", "2, 1, 3\n"))), ("", first_answers("7", "8")))
    found = solved(chances, "self_consistency(n=3) | rank", budget=Budget(prefill=len(TASK.question) + 5))
    assert found.stopped_by == "budget:prefill" and used(found) == [("rank", "budget")]
    assert found.answer == solved(chances, "self_consistency(n=3)").answer
