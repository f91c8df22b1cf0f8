"""The laws of a lattice, on any finite product of levels and category sets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.privacy.labels.flow import FlowLabel, FlowLattice, Labelled
from headrace.privacy.labels.lattice import Categories, Levels, Product
from headrace.spec.errors import InvalidRequest
from privacy.labelled import HR, LATTICE, LAW, PUBLIC, label, lattices


@given(lattices(), st.data())
@settings(max_examples=60)
def test_join_and_meet_are_least_and_greatest_bounds(lattice: FlowLattice, data: st.DataObject) -> None:
    every = st.sampled_from(list(lattice.elements()))
    a, b, c = data.draw(every), data.draw(every), data.draw(every)
    leq, join, meet = lattice.leq, lattice.join(a, b), lattice.meet(a, b)
    assert leq(a, join) and leq(b, join) and leq(meet, a) and leq(meet, b)
    assert leq(join, c) == (leq(a, c) and leq(b, c))
    assert leq(c, meet) == (leq(c, a) and leq(c, b))
    assert leq(a, a) and (a == b) == (leq(a, b) and leq(b, a))
    assert leq(lattice.bottom, a) and leq(a, lattice.top)
    assert lattice.has(join) and lattice.has(meet)


@given(lattices())
@settings(max_examples=40)
def test_texts_name_one_element_each(lattice: FlowLattice) -> None:
    elements = list(lattice.elements())
    assert len({lattice.text(one) for one in elements}) == len(set(elements)) == len(elements)


def test_trust_flows_the_other_way() -> None:
    assert LATTICE.leq(label(integrity="checked"), label(integrity="rumour"))
    assert not LATTICE.leq(label(integrity="rumour"), label(integrity="checked"))
    assert LATTICE.join(HR, label(integrity="rumour")) == label("secret", "hr", integrity="rumour")


def test_a_combination_has_the_join_and_shows_no_value() -> None:
    found = LATTICE.combine(lambda a, b: a + b, Labelled("sal", HR), Labelled("ary", LAW))
    assert found.value == "salary" and found.label == label("secret", "hr", "law")
    assert "salary" not in repr(found) and LATTICE.combine(lambda: 1).label == PUBLIC


def test_what_is_no_element_is_refused() -> None:
    for wrong in (("secret", frozenset()), FlowLabel("secret", "checked"), FlowLabel(("top", frozenset()), "checked")):
        with pytest.raises(InvalidRequest):
            LATTICE.check(wrong)
    for make in (lambda: Levels(()), lambda: Levels(("a", "a")), lambda: Categories(("a/b",)), lambda: Levels(("",))):
        with pytest.raises(InvalidRequest):
            make()
    assert Product(()).bottom == Product(()).top == ()
