"""Who may see what: the lattice, each principal's clearance, and the labels of adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.privacy.labels.flow import FlowLabel, FlowLattice, FlowRefused


@dataclass(frozen=True)
class Policy:
    """`clearances`: the highest label a principal may read. `adapters`: the label of what each was trained on.

    Raises InvalidRequest for a label that is not of the lattice.
    """

    lattice: FlowLattice
    clearances: Mapping[str, FlowLabel]
    adapters: Mapping[str, FlowLabel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label in (*self.clearances.values(), *self.adapters.values()):
            self.lattice.check(label)

    def clearance(self, principal: str) -> FlowLabel:
        """Raises FlowRefused for a principal that has none."""
        if principal not in self.clearances:
            raise FlowRefused(f"{principal} has no clearance; give one in the policy.")
        return self.clearances[principal]

    def domain(self, label: FlowLabel) -> str:
        """Who may share cached pages: everything of this label."""
        return f"label {self.lattice.text(label)}"

    def may_read(self, principal: str, label: FlowLabel) -> bool:
        return self.lattice.leq(label, self.clearance(principal))

    def check_read(self, principal: str, label: FlowLabel) -> None:
        """Raises FlowRefused where `label` does not flow to the principal's clearance."""
        if not self.may_read(principal, self.lattice.check(label)):
            text, most = self.lattice.text(label), self.lattice.text(self.clearance(principal))
            raise FlowRefused(f"{text} does not flow to {principal}, who is cleared for {most}; ask at a lower label.")

    def adapter_label(self, principal: str, adapter: str | None) -> FlowLabel:
        """Raises FlowRefused, in the same words for an adapter that is hidden and one that is not there."""
        if adapter is None:
            return self.lattice.bottom
        seen = [name for name, label in self.adapters.items() if self.may_read(principal, label)]
        if adapter not in seen:
            use = f"use one of {', '.join(sorted(seen))}" if seen else "none is, so leave it out"
            raise FlowRefused(f"Adapter {adapter!r} is not there for {principal}; {use}.")
        return self.adapters[adapter]
