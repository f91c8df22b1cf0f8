"""Claim 32: in its quick size on a tiny model that is trained here, and at full counts on SmolLM2."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs torch")

from evidence.test_engine_claims import judge
from headrace.evidence.claims import pandoras_white_box as claim


def test_white_box_audit_quick() -> None:
    found = claim.run("quick")
    assert set(judge(found, 32).values()) == {"passed"}
    assert found.numbers["trained 0 members loss-ratio tpr"] >= 0.9 > found.numbers["trained 0 control loss-ratio tpr"]


@pytest.mark.prove
def test_white_box_audit_at_full_counts(figures: dict[str, Any]) -> None:
    found = claim.run("full")
    figures.update(found.numbers)
    assert set(judge(found, 32).values()) == {"passed"}
    blind = [value for name, value in found.numbers.items() if name.endswith("members blind auc")]
    assert len(blind) == 3 * len(claim.SEEDS) and max(blind) < 0.55
