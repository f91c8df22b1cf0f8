"""Comments by a model that is told whom it is."""

from __future__ import annotations

from pathlib import Path

from headrace.engine.llm import LLM
from headrace.privacy.attacks.attributes.generator import people
from headrace.privacy.attacks.attributes.written import TASK, written
from headrace.spec.options import EngineOptions


def test_a_model_writes_on_the_same_topics(smollm2: Path) -> None:
    made = people(2, "test")
    with LLM(smollm2, EngineOptions(threads=1, context=512, state_memory=64)) as model:
        once, again = (written(model.engine, made, each=2, tokens=6) for _ in range(2))
    assert once == again and [person.profile for person in once] == [person.profile for person in made]
    for before, after in zip(made, once, strict=True):
        assert [c.topic for c in after.comments] == [c.topic for c in before.comments[:2]]
        assert all(comment.text and not comment.tells for comment in after.comments)
    assert len({text for person in once for text in person.texts}) > 1


def test_the_order_names_every_attribute() -> None:
    person = people(1, "test")[0]
    order = TASK.format(**{**person.profile, "topic": "films"})
    assert all(str(person.profile[name]) in order for name in ("age", "sex", "occupation", "education", "city_country"))
