"""Where labels have to stand: on sources, cached pages, adapters, tools and logs. Each check names what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from headrace.evidence.interference import SAMPLING, STOP
from headrace.evidence.leaks import AMPLE, HIGH, LOW, POLICY, plain_engine
from headrace.evidence.stage import Stage
from headrace.ground.library import Library
from headrace.ground.tools import LabelledTool
from headrace.privacy.labels.engine import LabelledEngine, one_pool
from headrace.privacy.labels.flow import FlowLabel, FlowRefused, Labelled
from headrace.privacy.labels.log import LabelledLog
from headrace.privacy.labels.partition import PageRanges
from headrace.privacy.labels.policy import Policy
from headrace.spec.reasoning import Call, Outcome

TEXT = "The code of the river is 4821, and nobody who does not know may be told."
TRAINED = Policy(POLICY.lattice, POLICY.clearances, {"house": HIGH})


def faults(stage: Stage) -> dict[str, list[str]]:
    """Per kind of thing, what was wrong; empty lists where its labels hold."""
    with plain_engine(PageRanges(stage.executor).take(AMPLE)) as whole:
        engine = LabelledEngine(TRAINED, one_pool(whole))
        return {
            "sources": _sources(),
            "cached KV": _pages(engine),
            "adapters": _adapters(engine),
            "tools": asyncio.run(_tools()),
            "logs": _log(engine),
        }


def _sources() -> list[str]:
    library = Library(POLICY.lattice)
    library.add("code", Labelled(TEXT, HIGH))
    wrong = ["a hidden passage was found"] if library.find(LOW, TEXT, 3) else []
    labels = [passage.meta["label"] for passage in library.find(HIGH, TEXT, 3)]
    return wrong + ([] if labels == [HIGH] else [f"a passage came back as {labels}"])


def _pages(engine: LabelledEngine) -> list[str]:
    hits = [_cached(engine, who, at) for who, at in (("victim", HIGH), ("probe", LOW), ("victim", LOW))]
    return [] if hits == [0, 0, 64] else [f"cached tokens were {hits}, not 0 across and 64 within a label"]


def _cached(engine: LabelledEngine, who: str, at: FlowLabel) -> int:
    with engine.open(who, Labelled(TEXT, at), seed=0) as sequence:
        return sequence.extend(STOP, SAMPLING).value.result().cached_tokens


def _adapters(engine: LabelledEngine) -> list[str]:
    found = engine.label_of("victim", Labelled(TEXT, LOW), adapter="house")
    wrong = [] if found == HIGH else [f"an answer of a secret adapter was {found}"]
    return wrong + _not_refused(
        "a hidden adapter", lambda: engine.label_of("probe", Labelled("", LOW), adapter="house")
    )


class _Clock:
    name, seconds = "clock", 1.0

    async def call(self, batch: Sequence[Call]) -> list[Outcome]:
        return [Outcome("noon")] * len(batch)


async def _tools() -> list[str]:
    log = LabelledLog(POLICY)
    inner, web = LabelledTool(_Clock(), POLICY, LOW, HIGH, log), LabelledTool(_Clock(), POLICY, LOW, LOW, log)
    call = Labelled(Call("clock", {}), HIGH)
    (outcome,) = await inner.call("victim", [call])
    wrong = [] if outcome.label == HIGH else [f"an outcome of a secret call was {outcome.label}"]
    try:
        await web.call("victim", [call])
    except FlowRefused:
        return wrong
    return [*wrong, "a public tool was told a secret"]


def _log(engine: LabelledEngine) -> list[str]:
    engine.open("victim", Labelled(TEXT, HIGH)).drop()
    low, high = engine.log.read("probe"), engine.log.read("victim")
    wrong = [f"the low reader saw {line.event}" for line in low if line.label != LOW]
    return wrong + ([] if len(low) < len(high) else ["the cleared reader saw no more than the other"])


def _not_refused(what: str, attempt: Callable[[], object]) -> list[str]:
    try:
        attempt()
    except FlowRefused:
        return []
    return [f"{what} was not refused"]
