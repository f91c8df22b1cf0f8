"""A policy in a file is the one that its tables say, and anything else is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.privacy.labels.file import read_policy
from headrace.privacy.labels.flow import FlowLabel
from headrace.privacy.labels.lattice import Categories, Levels, Product
from headrace.spec.errors import HeadraceError

WHOLE = """
[[confidentiality]]
levels = ["public", "secret"]
[[confidentiality]]
categories = ["hr", "law"]
[integrity]
levels = ["rumour", "checked"]
[clearances]
ann = {confidentiality = ["secret", ["hr"]], integrity = "checked"}
eve = {confidentiality = ["public", []], integrity = "rumour"}
[adapters]
house = {confidentiality = ["secret", []], integrity = "checked"}
"""
SMALL = '[confidentiality]\ncategories = ["hr"]\n[clearances]\nann = {confidentiality = ["hr"]}\n'


def policy(tmp_path: Path, text: str):
    file = tmp_path / "policy.toml"
    file.write_text(text, "utf-8")
    return read_policy(file)


def test_both_halves_of_a_label_are_read(tmp_path: Path) -> None:
    found = policy(tmp_path, WHOLE)
    secret, public = Levels(("public", "secret")), Categories(("hr", "law"))
    assert found.lattice.confidentiality == Product((secret, public))
    assert found.clearances["ann"] == FlowLabel(("secret", frozenset({"hr"})), "checked")
    assert found.may_read("ann", found.adapters["house"]) and not found.may_read("eve", found.adapters["house"])
    assert found.lattice.bottom == FlowLabel(("public", frozenset()), "checked")


def test_integrity_may_be_left_out(tmp_path: Path) -> None:
    found = policy(tmp_path, SMALL)
    assert found.clearances == {"ann": found.lattice.top} and len(list(found.lattice.elements())) == 2
    assert found.domain(found.lattice.bottom) != found.domain(found.lattice.top)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[confidentiality", "cannot be read"),
        (SMALL + "[clearence]\n", r"\[clearence\] is no part"),
        ("[clearances]\n", r"needs \[confidentiality\] and \[clearances\]"),
        ('[confidentiality]\ncategories = ["hr"]\n', r"needs \[confidentiality\] and \[clearances\]"),
        (SMALL.replace("categories", "kinds"), r"\[confidentiality\] is no lattice"),
        (SMALL.replace('["hr"]\n', '["hr", "hr"]\n'), "has a name twice"),
        (SMALL.replace("{confidentiality", "{secrecy"), "label of ann needs confidentiality"),
        (SMALL.replace('= ["hr"]}', '= ["law"]}'), r"\['law'\] in the label of ann"),
        (SMALL.replace('= ["hr"]}', '= "hr"}'), "'hr' in the label of ann"),
        (
            WHOLE.replace('["public", []], integrity = "rumour"', '["public", []]'),
            "eve needs confidentiality and",
        ),
        (WHOLE.replace('["public", []]', '["public"]'), r"\['public'\] in the label of eve"),
        (WHOLE.replace('"rumour"}', '"gossip"}'), "'gossip' in the label of eve"),
    ],
)
def test_what_is_no_policy_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HeadraceError, match=said):
        policy(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match="check the file"):
        read_policy(tmp_path / "none.toml")
