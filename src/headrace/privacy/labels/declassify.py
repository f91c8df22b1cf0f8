"""The one way down: release of a labelled value by whoever holds a capability for it, on record.

A capability's ceiling bounds integrity as well, so that what untrusted data has touched cannot be released by a
capability for trusted data (robust declassification: Zdancewic and Myers, CSFW 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from headrace.privacy.labels.flow import FlowLabel, FlowRefused, Labelled
from headrace.privacy.labels.log import LabelledLog
from headrace.privacy.labels.policy import Policy

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Capability:
    """Lets `holder` release what is labelled at most `ceiling` down to `floor` at least. Only an Authority's count."""

    holder: str
    ceiling: FlowLabel
    floor: FlowLabel
    purpose: str


class Authority:
    """Issues capabilities, honours those it has issued, and records every use in the log, refused ones too."""

    def __init__(self, policy: Policy, log: LabelledLog) -> None:
        self._policy, self._log = policy, log
        self._issued: list[Capability] = []

    def grant(self, holder: str, ceiling: FlowLabel, floor: FlowLabel, purpose: str) -> Capability:
        """Raises FlowRefused where the holder may not read what they would release."""
        lattice = self._policy.lattice
        self._policy.check_read(holder, lattice.check(ceiling))
        capability = Capability(holder, ceiling, lattice.check(floor), purpose)
        self._issued.append(capability)
        return capability

    def revoke(self, capability: Capability) -> None:
        self._issued = [one for one in self._issued if one is not capability]

    def declassify(
        self, value: Labelled[T], to: FlowLabel, principal: str, capability: Capability, reason: str
    ) -> Labelled[T]:
        """The value at the label `to`. The record is made first, at the label the value had; no record, no release.

        Raises FlowRefused; InvalidRequest for a label that is not of the lattice.
        """
        lattice = self._policy.lattice
        lattice.check(to)
        granted = any(one is capability for one in self._issued) and capability.holder == principal
        allowed = granted and lattice.leq(value.label, capability.ceiling) and lattice.leq(capability.floor, to)
        at = lattice.join(value.label, to)
        facts = {"to": lattice.text(to), "reason": reason, "purpose": capability.purpose}
        self._log.add("declassify" if allowed else "refuse to declassify", principal, at, **facts)
        if not allowed:
            raise FlowRefused(
                f"{principal} holds no capability to release {lattice.text(value.label)} to {lattice.text(to)}; "
                f"ask the policy's owner for one."
            )
        return Labelled(value.value, to)
