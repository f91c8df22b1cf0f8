"""Search leaves out what may not be read before it scores, and equals plain BM25 over what may."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.ground.library import Library, words
from headrace.ground.tools import LabelledTool
from headrace.privacy.labels.flow import FlowRefused, Labelled
from headrace.privacy.labels.log import LabelledLog
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Call, Outcome
from privacy.labelled import HR, LATTICE, LAW, POLICY, PUBLIC, label

pytest.importorskip("bm25s", reason="bm25s is not installed: pip install 'headrace[ground]'")

TEXTS = st.lists(st.sampled_from("salary rent vault code river stone ann ben".split()), max_size=8).map(" ".join)


def bm25(texts: list[str], query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """From the formula (Lucene's weights), one text at a time."""
    split = [words(text) for text in texts]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for text in split:
        counts, score = Counter(text), 0.0
        for word in words(query):
            holding = sum(word in other for other in split)
            weight = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
            score += weight * counts[word] / (counts[word] + k1 * (1 - b + b * len(text) / mean)) if counts[word] else 0
        scores.append(score)
    return scores


def filled(texts: list[str], at=PUBLIC) -> Library:
    library = Library(LATTICE)
    for number, text in enumerate(texts):
        library.add(f"p{number:02}", Labelled(text, at))
    return library


@given(st.lists(TEXTS, min_size=1, max_size=8), TEXTS)
@settings(max_examples=60)
def test_scores_are_those_of_the_formula(texts: list[str], query: str) -> None:
    found = filled(texts).find(PUBLIC, query, 20)
    expected = {f"p{n:02}": score for n, score in enumerate(bm25(texts, query)) if score > 0} if any(texts) else {}
    assert {passage.id: pytest.approx(passage.score, rel=1e-5) for passage in found} == expected
    assert [-p.score for p in found] == sorted(-p.score for p in found)


@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=6), TEXTS)
@settings(max_examples=60)
def test_hidden_passages_change_nothing(seen: list[str], hidden: list[str], query: str) -> None:
    plain, mixed = filled(seen), filled(seen)
    for number, text in enumerate(hidden):
        mixed.add(f"p{number:02}", Labelled(text, HR))
    for at in (PUBLIC, LAW):
        assert mixed.find(at, query, 3) == plain.find(at, query, 3)


def test_a_hidden_passage_forgets_no_index_of_others() -> None:
    library = filled(["ann ben", "river"])
    library.find(PUBLIC, "ann", 1)
    library.find(HR, "ann", 1)
    library.add("x", Labelled("ann", HR))
    assert set(library._indexes) == {PUBLIC}
    assert [p.id for p in library.find(HR, "ann", 5)] == ["x", "p00"]
    library.remove("x", HR)
    assert [p.id for p in library.find(HR, "ann", 5)] == ["p00"]
    with pytest.raises(InvalidRequest):
        library.remove("x", HR)


def test_the_same_id_at_two_labels_is_two_passages() -> None:
    library = filled(["ann"])
    library.add("p00", Labelled("ann has a vault", HR))
    assert [(p.id, p.meta["label"]) for p in library.find(HR, "ann", 5)] == [("p00", PUBLIC), ("p00", HR)]
    assert library.find(PUBLIC, "vault", 5) == []


def test_untrusted_passages_do_not_reach_who_asks_for_checked_ones() -> None:
    library = filled(["the vault is open"], label(integrity="rumour"))
    assert library.find(HR, "vault", 5) == [] and library.find(LATTICE.top, "vault", 5)


def test_a_reader_is_a_retriever_and_ties_keep_the_order_of_names() -> None:
    library = filled(["ann", "ann", "ben"])
    found = asyncio.run(library.at(PUBLIC).find(["ann", "", "nothing"], 5))
    assert [[p.id for p in passages] for passages in found] == [["p00", "p01"], [], []]


class Echo:
    name, seconds = "echo", 1.0

    def __init__(self) -> None:
        self.heard: list[Call] = []

    async def call(self, batch):
        self.heard += batch
        return [Outcome(str(call.arguments)) for call in batch]


def test_a_tool_hears_only_what_flows_to_it() -> None:
    log = LabelledLog(POLICY)
    tool = LabelledTool(Echo(), POLICY, label("internal"), HR, log)
    call = Call("echo", {"q": "vault"})
    (outcome,) = asyncio.run(tool.call("ann", [Labelled(call, PUBLIC)]))
    assert outcome.label == label("internal") and outcome.value.ok
    assert asyncio.run(tool.call("ann", [Labelled(call, HR)]))[0].label == HR
    for who, at in (("root", LAW), ("eve", PUBLIC)):
        with pytest.raises(FlowRefused):
            asyncio.run(tool.call(who, [Labelled(call, PUBLIC), Labelled(call, at)]))
    assert len(tool.tool.heard) == 2
    assert [line.event for line in log.read("ann")] == ["call", "call"]


class Summing(Echo):
    """Its outcomes rest on the whole batch, as those of a shell or of one web page for all do."""

    async def call(self, batch):
        return [Outcome(" ".join(str(call.arguments["q"]) for call in batch)) for _ in batch]


def test_an_outcome_rests_on_calls_of_its_own_label_alone() -> None:
    tool = LabelledTool(Summing(), POLICY, PUBLIC, HR, LabelledLog(POLICY))
    calls = [Labelled(Call("echo", {"q": q}), at) for q, at in (("a", PUBLIC), ("4821", HR), ("b", PUBLIC))]
    found = asyncio.run(tool.call("ann", calls))
    assert [(one.value.text, one.label) for one in found] == [("a b", PUBLIC), ("4821", HR), ("a b", PUBLIC)]


class Failing(Echo):
    async def call(self, batch):
        await super().call(batch)
        raise OSError("the line went dead")


def test_a_call_that_fails_is_on_record() -> None:
    log = LabelledLog(POLICY)
    with pytest.raises(OSError):
        asyncio.run(LabelledTool(Failing(), POLICY, PUBLIC, HR, log).call("ann", [Labelled(Call("echo", {}), HR)]))
    assert [(line.event, line.label) for line in log.read("ann")] == [("call", HR)]


def test_every_change_of_a_library_waits_for_a_search_under_way() -> None:
    library, entered = filled(["ann"]), []

    class Noting:
        def __enter__(self) -> None:
            entered.append(len(library._texts))

        def __exit__(self, *error: object) -> None:
            return None

    library._lock = Noting()  # type: ignore[assignment]
    library.add("x", Labelled("ann", HR))
    library.find(HR, "ann", 1)
    library.remove("x", HR)
    assert entered == [1, 2, 2]
