"""What is missing is said before anything is read."""

from __future__ import annotations

import pytest

from headrace.privacy.extra import _check
from headrace.spec.errors import HeadraceError


def test_libraries_are_named_with_the_extra_that_brings_them() -> None:
    _check("This needs", "json", "csv")
    with pytest.raises(HeadraceError, match=r"This needs json, csv and no_such_library; run `pip install headrace"):
        _check("This needs", "json", "csv", "no_such_library")
