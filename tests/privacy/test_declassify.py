"""Release needs a capability of this authority, in its holder's hands and within its bounds, and leaves a record."""

from __future__ import annotations

import pytest

from headrace.privacy.labels.declassify import Authority, Capability
from headrace.privacy.labels.flow import FlowLabel, FlowRefused, Labelled
from headrace.privacy.labels.log import LabelledLog
from headrace.spec.errors import InvalidRequest
from privacy.labelled import HR, LAW, POLICY, PUBLIC, label

SECRET = Labelled("the sum", HR)


class Full(LabelledLog):
    """A log that cannot be written."""

    def add(self, event: str, principal: str, label: FlowLabel, **facts: object) -> None:
        raise OSError("no room")


def test_a_release_is_on_record() -> None:
    log = LabelledLog(POLICY)
    authority = Authority(POLICY, log)
    capability = authority.grant("ann", HR, PUBLIC, "yearly report")
    assert authority.declassify(SECRET, PUBLIC, "ann", capability, "the board asked") == Labelled("the sum", PUBLIC)
    (line,) = log.read("ann")
    assert (line.event, line.principal, line.label, line.facts["reason"]) == (
        "declassify",
        "ann",
        HR,
        "the board asked",
    )
    assert log.read("eve") == [] and "the sum" not in str(line)


@pytest.mark.parametrize("case", ["none", "another's", "forged", "revoked", "ceiling", "floor", "rumour"])
def test_no_release_without_a_capability_that_fits(case: str) -> None:
    log = LabelledLog(POLICY)
    authority = Authority(POLICY, log)
    bounds = {"ceiling": (label("internal", "hr"), PUBLIC), "floor": (HR, label("internal"))}.get(case, (HR, PUBLIC))
    capability = authority.grant("ann", *bounds, "report")
    principal, value = "ann", SECRET
    if case == "none":
        capability = Authority(POLICY, log).grant("ann", HR, PUBLIC, "report")
    elif case == "another's":
        principal = "root"
    elif case == "forged":
        capability = Capability("ann", HR, PUBLIC, "report")
    elif case == "revoked":
        authority.revoke(capability)
    elif case == "rumour":
        value = Labelled("the sum", label("secret", "hr", integrity="rumour"))
    with pytest.raises(FlowRefused):
        authority.declassify(value, PUBLIC, principal, capability, "please")
    assert [line.event for line in log.read("root")] == ["refuse to declassify"]


def test_nobody_is_granted_what_they_cannot_read() -> None:
    with pytest.raises(FlowRefused):
        Authority(POLICY, LabelledLog(POLICY)).grant("ann", LAW, PUBLIC, "curiosity")


def test_a_label_of_another_lattice_is_refused() -> None:
    authority = Authority(POLICY, LabelledLog(POLICY))
    capability = authority.grant("ann", HR, PUBLIC, "report")
    with pytest.raises(InvalidRequest):
        authority.declassify(SECRET, FlowLabel(("open", frozenset()), "checked"), "ann", capability, "please")


def test_no_record_no_release() -> None:
    authority = Authority(POLICY, Full(POLICY))
    capability = authority.grant("ann", HR, PUBLIC, "report")
    with pytest.raises(OSError):
        authority.declassify(SECRET, PUBLIC, "ann", capability, "quietly")
