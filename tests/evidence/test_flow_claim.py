"""The claim of labels in its quick size, and its instruments."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from evidence.test_engine_claims import judge
from headrace.evidence import carried
from headrace.evidence.claims import ifc_noninterference as claim
from headrace.evidence.facts import ask_labelled, copier, draw_facts, library_of, right, sentence_layout
from headrace.evidence.scripted import scripted_engine
from headrace.evidence.stage import Stage
from headrace.ground.tools import LabelledTool
from headrace.privacy.labels.engine import LabelledEngine

pytest.importorskip("bm25s", reason="bm25s is not installed: pip install 'headrace[ground]'")


def test_labels_quick() -> None:
    found = claim.run("quick")
    assert set(judge(found, 25).values()) == {"passed"}
    assert found.numbers["bits_one_pool"] == pytest.approx(1) and found.numbers["bits_quotas"] == 0


def test_a_forgotten_label_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage.tiny(pages=claim.PAGES) as stage:
        assert not any(carried.faults(stage).values())
        monkeypatch.setattr(LabelledEngine, "domain", lambda self, label: "everyone")
        monkeypatch.setattr(LabelledTool, "_label_of", lambda self, principal, call: self.label)
        found = carried.faults(stage)
    assert found["cached KV"] and found["tools"] and not found["logs"]


def test_who_may_read_a_fact_is_told_it() -> None:
    facts = draw_facts(Random(3), 12)
    assert len({fact.place for fact in facts}) == len({fact.code for fact in facts}) == 12
    opened = [replace(fact, label=facts[0].label) for fact in facts]
    with scripted_engine(copier()) as engine:
        for corpus, shares in ((facts, [1.0, 0.0] * 6), (opened, [1.0] * 12)):
            told = ask_labelled(engine, library_of(corpus), "outsider", facts, sentence_layout)
            assert right(told, facts) == shares
