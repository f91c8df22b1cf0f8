"""Tools with labels: what may be sent to one, and what its outputs carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.privacy.labels.flow import FlowLabel, FlowRefused, Labelled
from headrace.privacy.labels.log import LabelledLog
from headrace.privacy.labels.policy import Policy
from headrace.spec.reasoning import Call, Outcome, Tool


@dataclass(frozen=True)
class LabelledTool:
    """`label`: what the tool adds of its own. `ceiling`: the highest label it may be told; the open web: `bottom`.

    A tool that remembers what it was told from one batch to the next needs a label at its ceiling.
    """

    tool: Tool
    policy: Policy
    label: FlowLabel
    ceiling: FlowLabel
    log: LabelledLog

    @property
    def name(self) -> str:
        return self.tool.name

    async def call(self, principal: str, batch: Sequence[Labelled[Call]]) -> list[Labelled[Outcome]]:
        """Outcomes at the join of call and tool. Raises FlowRefused before anything is sent.

        Calls of one label go together and no others: an outcome may rest on all that stood in its batch.
        """
        labels = [self._label_of(principal, call) for call in batch]
        for label in labels:  # before anything leaves: a tool that fails has been told nonetheless
            self.log.add("call", principal, label, tool=self.name)
        outcomes: dict[int, Outcome] = {}
        for label in dict.fromkeys(labels):
            places = [place for place, other in enumerate(labels) if other == label]
            told = await self.tool.call([batch[place].value for place in places])
            outcomes |= zip(places, told, strict=True)
        return [Labelled(outcomes[place], label) for place, label in enumerate(labels)]

    def _label_of(self, principal: str, call: Labelled[Call]) -> FlowLabel:
        lattice = self.policy.lattice
        if not lattice.leq(call.label, self.ceiling):
            text, most = lattice.text(call.label), lattice.text(self.ceiling)
            self.log.add("refuse to call", principal, call.label, tool=self.name)
            raise FlowRefused(f"{text} does not flow to {self.name}, which may be told {most}; declassify it first.")
        label = lattice.join(call.label, self.label)
        self.policy.check_read(principal, label)
        return label
