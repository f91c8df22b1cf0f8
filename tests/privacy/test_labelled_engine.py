"""Labels on live sequences: what they refuse, what they inherit, and whose pages they use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from headrace.engine.engine import Engine
from headrace.evidence.scripted import AsciiTokenizer
from headrace.evidence.stage import Stage
from headrace.privacy.labels.engine import LabelledEngine, Quotas, one_pool
from headrace.privacy.labels.flow import FlowRefused, Labelled
from headrace.privacy.labels.partition import PageRanges, Partition
from headrace.spec.adapter import Adapter, LowRank
from headrace.spec.errors import InvalidRequest, PlanRejected, SequenceBusy
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop
from privacy.labelled import HR, LATTICE, LAW, POLICY, PUBLIC, label

TEXT = "The quick brown fox jumps over the lazy dog, and then it does so again."
HOW = {"stop": Stop(tokens=4, ignore_eos=True), "sampling": Sampling(temperature=0.8, logprobs=3)}
RUMOUR = label(integrity="rumour")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage.tiny(pages=512) as stage:
        yield stage


def build(share: Partition) -> Engine:
    return Engine(share, AsciiTokenizer(), EngineOptions())  # type: ignore[arg-type]


@pytest.fixture(params=["one pool", "quotas"])
def engine(request, stage: Stage) -> Iterator[LabelledEngine]:
    ranges = PageRanges(stage.executor)
    if request.param == "one pool":
        with build(ranges.take(512)) as whole:
            yield LabelledEngine(POLICY, one_pool(whole))
            whole.check()
    else:
        quotas = Quotas(ranges, dict.fromkeys((PUBLIC, HR, LATTICE.top), 40), build)
        yield LabelledEngine(POLICY, quotas)
        quotas.close()


def test_the_output_has_the_join_of_request_prompt_and_adapter(engine: LabelledEngine) -> None:
    assert engine.label_of("ann", Labelled(TEXT, PUBLIC)) == PUBLIC
    assert engine.label_of("ann", Labelled(TEXT, PUBLIC), HR) == HR
    assert engine.label_of("root", Labelled(TEXT, LAW), RUMOUR, "house") == label(
        "secret", "hr", "law", integrity="rumour"
    )
    with engine.open("ann", Labelled(TEXT, HR)) as sequence:
        answer = sequence.extend(**HOW)
        assert answer.label == sequence.tokens.label == HR and answer.value.result().token_ids


def test_what_does_not_flow_is_refused(engine: LabelledEngine) -> None:
    for who, prompt, level in (("ann", LAW, None), ("eve", HR, None), ("eve", PUBLIC, HR), ("ann", RUMOUR, None)):
        with pytest.raises(FlowRefused):
            engine.open(who, Labelled(TEXT, prompt), level)
    with pytest.raises(FlowRefused):
        engine.open("nobody", Labelled(TEXT, PUBLIC))
    with engine.open("ann", Labelled(TEXT, PUBLIC)) as sequence:
        with pytest.raises(FlowRefused):
            sequence.append(Labelled("x", LAW))
        with pytest.raises(FlowRefused):
            sequence.score(Labelled(["x"], HR))
        assert sequence.label == PUBLIC and sequence.tokens.value == [ord(c) for c in TEXT]


def test_a_hidden_adapter_and_a_missing_one_are_refused_in_the_same_words(engine: LabelledEngine) -> None:
    said = []
    for name in ("house", "horse"):
        with pytest.raises(FlowRefused) as refused:
            engine.open("eve", Labelled(TEXT, PUBLIC), adapter=name)
        said.append(str(refused.value).replace(name, "NAME"))
    assert said[0] == said[1]


def test_forks_inherit_and_a_rise_keeps_the_bits(engine: LabelledEngine) -> None:
    with engine.open("ann", Labelled(TEXT, PUBLIC), seed=3) as plain:
        expected = plain.extend(**HOW).value.result()
    with engine.open("ann", Labelled(TEXT, PUBLIC), seed=3) as sequence:
        sequence.rise(HR)
        found = sequence.extend(**HOW).value.result()
        assert (found.token_ids, found.logprobs) == (expected.token_ids, expected.logprobs)
        assert found.prompt_tokens == expected.prompt_tokens
        kids = sequence.fork(2)
        assert [kid.label for kid in kids] == [HR, HR]
        assert kids[0].extend(**HOW).label == HR
        assert sequence.score(Labelled(["ab"], PUBLIC)).label == HR
        for kid in kids:
            kid.drop()


def test_a_rise_waits_for_nobody(engine: LabelledEngine) -> None:
    with engine.open("ann", Labelled(TEXT, PUBLIC)) as sequence:
        running = sequence.extend(Stop(tokens=200, ignore_eos=True))
        with pytest.raises(SequenceBusy):
            sequence.append(Labelled("x", HR))
        assert len(running.value.result().token_ids) == 200


def test_pages_are_shared_within_a_label_only(engine: LabelledEngine) -> None:
    def cached(who: str, at=None) -> int:
        with engine.open(who, Labelled(TEXT, PUBLIC), at) as sequence:
            return sequence.extend(**HOW).value.result().cached_tokens

    assert cached("ann", HR) == 0
    assert cached("eve") == 0
    assert cached("root", HR) == 64 and cached("ann") == 64
    with engine.open("ann", Labelled(TEXT, PUBLIC)) as sequence:
        sequence.append(Labelled("Her salary is 90,000 and nobody else is told so.", HR))
        sequence.extend(**HOW).value.result()
    with engine.open("eve", Labelled(TEXT + "Her salary is 90,000 and nobody else is told so.", PUBLIC)) as guess:
        assert guess.extend(**HOW).value.result().cached_tokens == 64


def test_each_reads_a_log_of_their_own(engine: LabelledEngine) -> None:
    engine.open("ann", Labelled(TEXT, HR)).drop()
    engine.open("eve", Labelled(TEXT, PUBLIC)).drop()
    assert [line.principal for line in engine.log.read("eve")] == ["eve"]
    assert [line.principal for line in engine.log.read("ann")] == ["ann", "eve"]


def test_quotas_are_disjoint_and_end(stage: Stage) -> None:
    quotas = Quotas(PageRanges(stage.executor), {PUBLIC: 256, HR: 256}, build)
    with pytest.raises(FlowRefused):
        quotas(LAW)
    with pytest.raises(PlanRejected):
        Quotas(PageRanges(stage.executor), {PUBLIC: 256, HR: 257}, build)
    assert quotas(PUBLIC) is quotas(PUBLIC) is not quotas(HR)
    quotas.close()


def test_partitions_load_an_adapter_once(stage: Stage) -> None:
    rng = np.random.default_rng(1)
    half = LowRank(rng.standard_normal((2, 64), np.float32), rng.standard_normal((64, 2), np.float32), 1.0)
    adapter = Adapter("house", {"layers.0.attn.q.weight": half})
    quotas = Quotas(PageRanges(stage.executor), {HR: 40, LATTICE.top: 40}, build)
    found = {}
    for at in (HR, LATTICE.top):
        quotas(at).add_adapter("house", adapter)
    other = Adapter("house", {"layers.0.attn.q.weight": LowRank(half.a, -half.b, 1.0)})
    quotas(HR).remove_adapter("house")
    with pytest.raises(InvalidRequest, match="other weights"):
        quotas(HR).add_adapter("house", other)
    quotas(HR).add_adapter("house", adapter)
    engine = LabelledEngine(POLICY, quotas)
    for at, name in ((HR, "house"), (LATTICE.top, "house"), (LATTICE.top, None)):
        with engine.open("root", Labelled(TEXT, HR), at, adapter=name, seed=1) as sequence:
            found[at, name] = sequence.extend(**HOW).value.result().logprobs
    assert found[HR, "house"] == found[LATTICE.top, "house"] != found[LATTICE.top, None]
    for at in (HR, LATTICE.top):
        quotas(at).remove_adapter("house")
    quotas.close()
