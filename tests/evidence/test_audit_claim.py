"""Claim 32 in its quick size, on a tiny model that is trained here."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="training needs torch")

from evidence.test_engine_claims import judge
from headrace.evidence.claims import pandoras_white_box as claim


def test_white_box_audit_quick() -> None:
    found = claim.run("quick")
    assert set(judge(found, 32).values()) == {"passed"}
    assert found.numbers["trained 0 members loss-ratio tpr"] >= 0.9 > found.numbers["trained 0 control loss-ratio tpr"]
