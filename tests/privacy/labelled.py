"""Lattices and small labelled engines for tests."""

from __future__ import annotations

from hypothesis import strategies as st

from headrace.privacy.labels.flow import FlowLabel, FlowLattice
from headrace.privacy.labels.lattice import Categories, Lattice, Levels, Product
from headrace.privacy.labels.policy import Policy

LATTICE = FlowLattice(
    Product((Levels(("public", "internal", "secret")), Categories(("hr", "law")))), Levels(("rumour", "checked"))
)


def label(level: str = "public", *categories: str, integrity: str = "checked") -> FlowLabel:
    return FlowLabel((level, frozenset(categories)), integrity)


PUBLIC, HR, LAW = label(), label("secret", "hr"), label("secret", "law")
POLICY = Policy(LATTICE, {"ann": HR, "ben": label("internal"), "eve": PUBLIC, "root": LATTICE.top}, {"house": HR})


def parts() -> st.SearchStrategy[Lattice]:
    levels = st.integers(1, 4).map(lambda count: Levels(tuple(f"l{n}" for n in range(count))))
    categories = st.integers(0, 3).map(lambda count: Categories(tuple(f"c{n}" for n in range(count))))
    return levels | categories


def lattices() -> st.SearchStrategy[FlowLattice]:
    many = parts() | st.lists(parts(), min_size=0, max_size=3).map(lambda found: Product(tuple(found)))
    return st.builds(FlowLattice, many, many)
