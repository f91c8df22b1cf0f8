"""What labels say of each request: a key's principal runs at its clearance, and knows of no more than that.

A prompt that comes over HTTP has the label of its key; so have the pages that it leaves and the answer. Hit counters
are not told: in one pool of pages they would show what other labels' work has evicted.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.privacy.labels.file import read_policy
from headrace.privacy.labels.policy import Policy
from headrace.server.config import ServerConfig
from headrace.server.errors import ApiError
from headrace.server.keys import KeyRing
from headrace.spec.errors import HeadraceError


class Labels:
    """Without a policy nothing has a label, and every principal shares pages with itself alone."""

    def __init__(self, policy: Policy | None = None) -> None:
        self._policy = policy

    @classmethod
    def read(cls, config: ServerConfig, keys: KeyRing) -> Labels:
        """Raises HeadraceError for a policy that cannot be used with these keys."""
        if config.labels is None:
            return cls()
        if config.api_keys is None:
            raise HeadraceError("--labels needs principals, which come with their keys; add --api-keys.")
        policy = read_policy(config.labels)
        if missing := sorted(keys.principals - policy.clearances.keys()):
            raise HeadraceError(f"{missing[0]} has a key but no clearance; add one to {config.labels}.")
        return cls(policy)

    def check(self, adapters: Sequence[str]) -> None:
        """Raises HeadraceError for an adapter without a label."""
        for name in adapters:
            if self._policy is not None and name not in self._policy.adapters:
                raise HeadraceError(f"The adapter {name} has no label; add what it was trained on to [adapters].")

    def label(self, principal: str) -> str | None:
        """The label of all that this principal asks and is told."""
        return None if self._policy is None else self._policy.lattice.text(self._policy.clearance(principal))

    def sharing(self, principal: str) -> str | None:
        """Who may share the pages of its requests; None is itself alone."""
        return None if self._policy is None else self._policy.domain(self._policy.clearance(principal))

    def adapters(self, principal: str, loaded: Sequence[str]) -> tuple[str, ...]:
        """Those that it may know of; one without a label, loaded while the server runs, is nobody's."""
        policy = self._policy
        if policy is None:
            return tuple(loaded)
        labels = policy.adapters
        return tuple(name for name in loaded if name in labels and policy.may_read(principal, labels[name]))

    def check_metrics(self, principal: str) -> None:
        """Raises ApiError 403: metrics count everybody's work, so they have the highest label."""
        if self._policy is not None and not self._policy.may_read(principal, self._policy.lattice.top):
            message = "Metrics count everybody's work; ask with a key that is cleared for all labels."
            raise ApiError(403, message, code="label")
