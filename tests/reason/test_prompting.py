"""Medprompt, ThinkSum, concise perception and critical questions, on models whose every probability is known."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from fractions import Fraction
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import pytest

from headrace.engine.engine import Engine
from headrace.evidence.scripted import END, AsciiTokenizer, Chances, ScriptedExecutor, says, scripted_engine
from headrace.reason.answers import Choice, Number
from headrace.reason.choices import Options, orders
from headrace.reason.horn import organised, prove, read_statement
from headrace.reason.solve import Order, Result, solve
from headrace.reason.strategies.questioning import QUESTIONS
from headrace.reason.task import Task
from headrace.reason.tasks import arguments, lettered, sets, worlds
from headrace.reason.thoughts import Contexts, combined, normalised
from headrace.reason.worked import Examples, Worked
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

ASKED = Options("Which one?", ("kiwi", "lime", "fig", "date"))


def task(**meta) -> Task:
    return Task(
        ASKED.text(), Choice(ASKED.letters), ending=Stop(tokens=40), chat=False, meta={"choices": ASKED, **meta}
    )


def solved(chances: Chances, strategy: str, asked: Task, **how) -> Result:
    with scripted_engine(chances) as engine:
        order = Order(strategy, **{"seed": 5, "sampling": Sampling(temperature=1.0), **how})
        found = asyncio.run(solve(engine, asked, order))
        engine.check()
        assert engine.stats()["open_sequences"] == 0
        return found


# -- Medprompt -------------------------------------------------------------------------------------


def leaning(places: dict[str, float]) -> Chances:
    """Answers a letter whatever the options are: nothing but position bias."""

    def chances(text: str):
        tail = text.rpartition("nothing else.\n\n")[2]
        return places if tail == "" else {END: 1.0}

    return chances


def test_shuffling_takes_position_bias_away() -> None:
    bias = leaning({"A": 0.7, "B": 0.1, "C": 0.1, "D": 0.1})
    plain = solved(bias, "medprompt(few_shot=False, n=96, chain=False, shuffle=False)", task())
    mixed = solved(bias, "medprompt(few_shot=False, n=96, chain=False)", task())
    shown = [Counter(c.answer for c in found.candidates) for found in (plain, mixed)]
    assert chi_square(shown[0]) > 16.27 > chi_square(shown[1]), "the 0.1 % point of three degrees of freedom"
    assert Counter(c.text for c in mixed.candidates)["A"] > 50, "what was written leans as before"


def chi_square(counts: Counter) -> float:
    even = sum(counts.values()) / 4
    return sum((counts[letter] - even) ** 2 / even for letter in "ABCD")


def test_orders_are_balanced_and_undone() -> None:
    assert set(Counter(orders(3, 12, Random(0))).values()) == {2} and len(orders(3, 7, Random(0))) == 7
    for times in (1, 4, 8, 12):
        found = orders(4, times, Random(times))
        assert len(found) == times
        if times % 4 == 0:
            counts = Counter((place, option) for order in found for place, option in enumerate(order))
            assert set(counts.values()) == {times // 4}
    for order in orders(4, 24, Random(0)):
        for place, letter in enumerate(ASKED.letters):
            shown = ASKED.text(order).splitlines()[1 + place]
            assert shown == f"{letter}) {ASKED.options['ABCD'.index(ASKED.unshuffled(letter, order))]}"
    assert ASKED.unshuffled("E", (0, 1, 2, 3)) is None and ASKED.unshuffled(None, (0, 1, 2, 3)) is None


WORKED = (
    Worked("What is 3 + 4?", ("7", "8", "9", "6"), "A", "3 and 4 make 7."),
    Worked("Which of these is a fruit?", ("car", "plum", "saw", "tea"), "B", "A plum can be eaten."),
    Worked("Which one is a drink?", ("car", "plum", "saw", "tea"), "D", ""),
)


def test_nearest_examples_are_shown_as_they_were_worked() -> None:
    known = Examples(WORKED)
    assert [item.answer for item in known.nearest("Which one is it?", 2)] == ["B", "D"], "the nearest last"
    vectors = Examples(WORKED, lambda texts: np.array([[1.0, 0.0] if "+" in t else [0.0, 1.0] for t in texts]))
    assert [item.answer for item in vectors.nearest("5 + 5", 1)] == ["A"]
    seen: list[str] = []

    def chances(text: str):
        seen.append(text)
        return says(("letter.\n\n", "Answer: D"))(text)

    solved(chances, "medprompt(examples=2, n=1, shuffle=False)", task(examples=known))
    assert "A plum can be eaten.\nAnswer: B" in seen[0] and "3 and 4" not in seen[0]
    assert seen[0].index("plum can be eaten") < seen[0].index("Which one is a drink") < seen[0].rindex("Which one?")
    with pytest.raises(InvalidRequest, match="few_shot=False"):
        solved(chances, "medprompt", task())


def test_examples_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "worked.jsonl"
    Examples(WORKED).save(path)
    assert Examples.load(path).items == WORKED
    path.write_text('{"stem": 1}\n')
    with pytest.raises(InvalidRequest, match="make them anew"):
        Examples.load(path)


# -- ThinkSum --------------------------------------------------------------------------------------

CONTEXTS = ("one ", "two ", "three ")
LAW = {
    "one ": {"k": Fraction(1, 2), "l": Fraction(1, 4), "f": Fraction(1, 8), "d": Fraction(1, 8)},
    "two ": {"k": Fraction(1, 10), "l": Fraction(6, 10), "f": Fraction(2, 10), "d": Fraction(1, 10)},
    "three ": {"k": Fraction(1, 3), "l": Fraction(1, 6), "f": Fraction(1, 6), "d": Fraction(1, 3)},
}


def known_law(text: str):
    for context, law in LAW.items():
        if text.endswith(context):
            return {letter: float(chance) for letter, chance in law.items()}
    return says(*((word[0], word[1:]) for word in ASKED.options), ("D)", ""))(text)


@pytest.mark.parametrize("how", ["mixture", "product", "max"])
def test_sums_are_exact_whatever_the_order_of_contexts(how: str) -> None:
    rows = [[LAW[context][word[0]] for word in ASKED.options] for context in CONTEXTS]
    put = {"mixture": sum, "product": math.prod, "max": max}[how]
    exact = [put(column) for column in zip(*rows, strict=True)]
    shares = [float(value / sum(exact)) for value in exact]
    found = []
    for contexts in (CONTEXTS, CONTEXTS[::-1]):
        result = solved(known_law, f"thinksum(how={how!r})", task(think=Contexts(contexts, ASKED.options)))
        (summed,) = result.trace.of("summed")
        assert max(abs(a - b) for a, b in zip(summed.data["shares"], shares, strict=True)) < 1e-6
        assert result.answer == "ABCD"[shares.index(max(shares))] and result.usage["completion"] == 0
        found.append(summed.data["shares"])
    assert found[0] == found[1]


def test_half_a_sum_is_no_sum() -> None:
    think = Contexts(CONTEXTS, ASKED.options)
    found = solved(known_law, "thinksum", task(think=think), budget=Budget(prefill=len(ASKED.text()) + 30))
    assert found.stopped_by == "budget:prefill" and found.candidates[0].origin == "direct"
    assert not list(found.trace.of("summed"))
    with pytest.raises(InvalidRequest, match="give one of mixture"):
        solved(known_law, "thinksum(how='mean')", task(think=think))


def test_combining_probabilities() -> None:
    rows = [[math.log(0.5), math.log(0.1)], [math.log(0.1), math.log(0.3)]]
    assert [round(math.exp(v), 12) for v in combined(rows, "mixture")] == [0.3, 0.2]
    assert normalised([-1000.0, -1000.0]) == pytest.approx([0.5, 0.5], abs=1e-12)
    assert combined([[-math.inf], [-math.inf]], "mixture") == [-math.inf]


@pytest.mark.parametrize("family", sorted(sets.FAMILIES))
def test_sets_are_solved_by_a_model_that_knows_the_words(family: str) -> None:
    """With likelihoods that follow the words' kinds and clues the sums give the gold answer, in every wording."""
    for seed in range(40):
        answers = set()
        for wording in range(sets.WORDINGS):
            posed = sets.FAMILIES[family](seed, wording)
            think = posed.task.meta["think"]
            found = [[knows(t.context, c) for c in t.continuations] for t in think.thoughts([])]
            weights = think.weigh(found, "mixture")
            answers.add("ABCD"[weights.index(max(weights))])
        assert answers == {posed.gold}, seed


def test_a_clue_turned_around_once_says_the_opposite_and_twice_the_same() -> None:
    for seed, wording in product(range(20), range(sets.WORDINGS)):
        think, taught = (sets.deduction(seed, wording, plain).task.meta["think"] for plain in (False, True))
        assert [clue.same[:1] for clue in think.clues] == [clue.same for clue in taught.clues]
        for clue in think.clues:
            first, second = (f" {think.people[place]}" for place in (clue.first, clue.second))
            said, again, *turned = (knows(text, first) > knows(text, second) for text in clue.same + clue.opposite)
            assert said == again and turned == [not said] * 2
            assert len({*clue.same, *clue.opposite}) == 4
        last = [max(t.continuations, key=t.context.rfind) for t in think.thoughts([])]
        leaning = [
            [-1.0 if name == named else -3.0 for name in thought.continuations]
            for thought, named in zip(think.thoughts([]), last, strict=True)
        ]
        assert think.rows(leaning) == [(0.0, 0.0)] * 3, "who is named last counts for nothing"
    assert not {name for *pair, _ in sets.SHOWN for name in pair} & {*sets.PEOPLE}


def knows(context: str, after: str) -> float:
    """Log-likelihood by a reader of the test's own."""
    kinds = {word: kind for kind, members in sets.KINDS.items() for word in members}
    facts = {fact: kind for kind, fact in sets.FACTS.items()}
    word = after.strip()
    if word in facts:
        return -1.0 if facts[word] in context else -6.0
    if word in kinds:
        return -1.0 if any(kinds.get(w.strip(",.")) == kinds[word] for w in context.split()) else -6.0
    clue = next(part for part in context.split(".") if any(name in part for name in sets.PEOPLE))
    a, b = [name for name in clue.replace(",", " ").split() if name in sets.PEOPLE][:2]
    first = {"taller than": a, "shorter than": b, "not as short": a, "not as tall": b}
    taller = next((who for said, who in first.items() if said in clue), None)
    if taller is None:
        last = [name for name in clue.replace(",", " ").split() if name in sets.PEOPLE][-1]
        taller = last if "taller one" in clue else (a if last == b else b)
    return -0.1 if word == taller else -3.0


# -- concise and organised perception --------------------------------------------------------------


def test_statements_are_read() -> None:
    rule = read_statement("If someone is red and big then they are kind.")
    assert rule is not None and rule.conditions == (("someone", "red"), ("someone", "big"))
    assert read_statement("Anne is red.").conclusion == ("Anne", "red")
    other = read_statement("If Anne is red and Bob is big then Bob is kind.")
    assert other is not None and other.conditions == (("Anne", "red"), ("Bob", "big")) and other.conclusion[0] == "Bob"
    assert read_statement("Cats purr.") is None and read_statement("If it rains then they are wet.") is None


BASE = (
    "If someone is kind then they are calm.",
    "Bob is red.",
    "Cats purr.",
    "If someone is red and big then they are kind.",
    "Anne is red.",
    "If someone is rich then they are calm.",
    "Anne is big.",
    "If someone is calm then they are kind.",
)


def test_perception_keeps_what_is_needed_in_the_order_of_inference() -> None:
    kept = organised(BASE, "Anne is calm.")
    assert [BASE[index] for index in kept] == [BASE[2], BASE[4], BASE[6], BASE[3], BASE[7], BASE[0]]
    assert prove(BASE, "Anne is calm.") == [0, 3, 4, 6] and prove(BASE, "Bob is calm.") is None
    assert prove(BASE, "Anne is rich.") is None


def test_worlds_have_proofs_that_perception_keeps() -> None:
    true = 0
    for seed in range(60):
        made = worlds.world(seed, depth=1 + seed % 4)
        assert made == worlds.world(seed, depth=1 + seed % 4)
        kept = organised(made.rules.premises, made.rules.query)
        if made.proof is None:
            assert made.posed.gold == "false"
            continue
        true += 1
        assert set(made.proof) <= set(kept)
        assert prove([made.rules.premises[index] for index in made.proof], made.rules.query) is not None
        for index in made.proof:
            rest = [made.rules.premises[other] for other in made.proof if other != index]
            assert prove(rest, made.rules.query) is None, "every statement of a gold proof is needed"
        assert [i for i in kept if i in made.proof] == in_order(made, kept)
    assert 20 < true < 40


def in_order(made: worlds.World, kept: list[int]) -> list[int]:
    """The proof's statements as perceived, if each one's conditions are derivable from those before it."""
    before: list[str] = []
    for index in (i for i in kept if i in made.proof):
        statement = read_statement(made.rules.premises[index])
        who = made.rules.query.split()[0]
        for _, quality in statement.conditions:
            assert prove(before, f"{who} is {quality}.") is not None
        before.append(made.rules.premises[index])
    return [i for i in kept if i in made.proof]


def test_perception_asks_once_and_selection_step_by_step() -> None:
    made = next(w for w in map(worlds.world, range(9)) if w.proof)
    asked = Task(
        made.rules.text(), made.posed.task.answers, ending=Stop(tokens=40), chat=False, meta=made.posed.task.meta
    )
    seen: list[str] = []

    def chances(text: str):
        seen.append(text)
        script = (("number alone.", "3\n"), ("'Anne is red.'", "So be it.\n"), ("'Answer: False'.", "Answer: True"))
        return says(*script)(text)

    found = solved(chances, "cop", asked)
    assert found.answer == "true" and len(list(found.trace.of("open"))) == 1
    (note,) = found.trace.of("perceived")
    assert len(note.data["kept"]) < note.data["of"] == len(made.rules.premises)
    lines = seen[0].splitlines()
    assert lines[: len(note.data["kept"])] == [made.rules.premises[index] for index in note.data["kept"]]
    seen.clear()
    stepwise = solved(chances, "stepwise_selection(rounds=2)", asked)
    assert stepwise.answer == "true" and len(list(stepwise.trace.of("open"))) == 6
    assert seen[-1].count("So be it.") == 2


# -- critical questions ----------------------------------------------------------------------------


def doubter(doubts: int) -> Chances:
    """Says no to the first `doubts` questions about a first plan, and yes to every other and to all about a second."""

    def chances(text: str):
        before, asked, said = text.rpartition("Answer yes or no:")
        if asked:
            second = "An earlier plan failed" in before
            no = not second and any(question in before for question in QUESTIONS[:doubts])
            first = {"n": 0.9, "y": 0.1} if no else {"y": 0.8, "n": 0.2}
            return {"": {" ": 1.0}, " ": first, " n": {"o": 1.0}, " y": {"e": 1.0}, " ye": {"s": 1.0}}[said]
        return says(("the complete answer.", "42"), ("to the answer.\n", "Multiply."), ("?\n", "Add."))(text)

    return chances


def verdicts(found: Result) -> list[bool]:
    return [event.data["passed"] for event in found.trace.of("verdict")]


SIX = Task("6 * 7 = ?\n", Number(), ending=Stop(tokens=40), chat=False)


def test_a_plan_is_questioned_until_it_passes() -> None:
    once = solved(doubter(1), "critical_questions", SIX)
    assert verdicts(once) == [False] + [True] * 7 and once.answer == "42"
    assert [e.data["question"] for e in once.trace.of("verdict")] == list(QUESTIONS)
    assert all(abs(e.data["yes"] - (0.8 if e.data["passed"] else 0.1)) < 1e-5 for e in once.trace.of("verdict"))
    twice = solved(doubter(2), "critical_questions", SIX)
    assert verdicts(twice) == [False] * 2 + [True] * 14 and twice.answer == "42"
    assert [event.data["turn"] for event in twice.trace.of("verdict")] == [0] * 8 + [1] * 8
    never = solved(doubter(8), "critical_questions(tries=1)", SIX)
    assert verdicts(never) == [False] * 8 and never.answer == "42", "the tries are bounded, and then it answers"
    stubborn = solved(doubter(0), "critical_questions(passing=8, sure=0.99, tries=4)", SIX)
    assert verdicts(stubborn) == [False] * 32 and stubborn.answer == "42"


def test_questions_share_the_plans_pages() -> None:
    found = solved(doubter(0), "critical_questions", SIX)
    forks = list(found.trace.of("fork"))
    assert found.usage["forks"] == 8 and len({event.node for event in forks}) == 1
    opened = sum(event.data["prefill"] for event in found.trace.of("open"))
    asked = sum(len(question) + 25 for question in QUESTIONS)
    assert found.usage["prompt"] < opened + asked + 8 * 10, "the plan is never sent again"


def test_what_the_budget_left_unasked_is_no_yes() -> None:
    free = solved(doubter(0), "critical_questions", SIX)
    opened = sum(event.data["prefill"] for event in list(free.trace.of("open"))[:2])
    cut = solved(doubter(0), "critical_questions", SIX, budget=Budget(prefill=opened + 20))
    assert verdicts(cut) == [False] * 8 and {e.data["yes"] for e in cut.trace.of("verdict")} == {None}
    assert cut.candidates[0].answer is None and cut.stopped_by == "budget:prefill"


# -- generators ------------------------------------------------------------------------------------


def test_questions_with_letters_are_right_and_lean_as_told() -> None:
    for seed in range(50):
        posed = lettered.question(seed)
        assert posed == lettered.question(seed)
        asked = posed.task.meta["choices"]
        assert len(set(asked.options)) == 4 and posed.task.answers.extract(f"Answer: {posed.gold}") == posed.gold
        right = asked.options["ABCD".index(posed.gold)]
        if posed.family == "sum":
            a, b = asked.stem.removeprefix("What is ").rstrip("?").split(" + ")
            assert int(a) + int(b) == int(right)
        if posed.family == "largest":
            assert int(right) == max(map(int, asked.options))
    places = [Counter(lettered.question(seed, lean).gold for seed in range(200)) for lean in (0.0, 1.0)]
    assert min(places[0].values()) > 30 and places[1] == {"A": 200}


def test_arguments_have_the_fault_that_was_planted() -> None:
    for seed in range(30):
        sound = arguments.argument(seed)
        texts = {fault: arguments.argument(seed, fault) for fault in arguments.FAULTS}
        assert all(made.posed == sound.posed for made in texts.values())
        assert len({sound.text, *(made.text for made in texts.values())}) == 4
        assert texts["missing"].text.count("Premise") == 2 and sound.text.count("Premise") == 3
        steps = sound.text.splitlines()[3]
        a, b, c = (int(word.strip(".")) for word in steps.split() if word.strip(".").isdigit())
        assert a + b == c and texts["step"].text.splitlines()[3] != steps
        told = [line.removeprefix("Premise: ") for line in texts["false"].text.splitlines()[:3]]
        assert sum(line not in sound.posed.task.question for line in told) == 1


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [("thinksum", 3 * len(ASKED.options)), ("medprompt(few_shot=False, n=6, chain=False, shuffle=False)", 6)],
)
def test_what_continuations_and_forks_share_is_computed_once(strategy: str, parts: int) -> None:
    """Counted by an engine without a prefix cache: each context once, then at most 16 tokens for whoever goes on."""
    contexts = tuple(f"{name} " * 30 for name in ("one", "two", "three"))
    asked = task(think=Contexts(contexts, ASKED.options))
    computed = []
    executor = ScriptedExecutor(leaning({"A": 0.7, "B": 0.3}))
    with Engine(executor, AsciiTokenizer(), EngineOptions(prefix_cache=False)) as engine:  # type: ignore[arg-type]
        stop = engine.events.listen(lambda event: computed.append(event.prefill_tokens))
        found = asyncio.run(solve(engine, asked, Order(strategy, seed=5)))
        stop()
    given = sum(len(event.data["tokens"]) for event in found.trace.of("open"))
    assert sum(computed) <= given + 16 * (parts + 2)
