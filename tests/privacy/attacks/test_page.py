"""docs/privacy.md says what the result file says, and nothing calls veil what it is not."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
CLAIMED = re.compile(r"\b(encrypt|secur)", re.IGNORECASE)
ABOUT_VEIL = re.compile(r"\bveil", re.IGNORECASE)
DENIED = re.compile(r"\b(no|not|never)\b[^.]{0,30}\b(encrypt|secur)\w*|Equivariant Encryption", re.IGNORECASE)
QUALIFIED = "privacy.md#who-sees-what"


@pytest.fixture(scope="module")
def veil_page() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("veil_page")


def test_the_page_is_fresh(veil_page: ModuleType) -> None:
    """Fails when a result or the generator changed: `python benchmarks/veil_page.py`."""
    assert veil_page.PAGE.read_text(encoding="utf-8") == veil_page.whole()


def test_every_figure_is_of_the_results(veil_page: ModuleType) -> None:
    found = json.loads(veil_page.RESULTS.read_text(encoding="utf-8"))
    row = next(row for row in found["rows"] if row["attack"] == "align")
    row["recovery"]["types"] |= {"value": 0.12345, "low": 0.1, "high": 0.2}
    assert "12.3% [10.0%, 20.0%]" in veil_page.page(found)
    emptied = veil_page.page(found | {"rows": [], "done": 0})
    assert not re.search(r"\d%", emptied.replace("95 %", "")) and emptied.count(veil_page.OPEN) > 30


def test_align_recovers_what_it_did(veil_page: ModuleType) -> None:
    """If this falls, the attack broke or the claim changed."""
    found = veil_page.Results(json.loads(veil_page.RESULTS.read_text(encoding="utf-8")))
    for recovery in found.of("align", noise=0.0):
        assert recovery["types"]["low"] >= 0.99 and recovery["scored"] == 49_152


def overclaims(text: str) -> list[str]:
    """Paragraphs that call veil encrypted or secure and do not point to who sees what; to deny it is no claim."""
    parts = [part for part in re.split(r"\n\s*\n|\n(?=[|#-])", text) if ABOUT_VEIL.search(part)]
    return [part for part in parts if CLAIMED.search(DENIED.sub("", part)) and QUALIFIED not in part]


def literals(path: Path) -> Iterator[str]:
    """Every string of a source file: help texts, messages, log lines and docstrings, f-strings whole."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_page_calls_veil_encrypted_or_secure() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = {path.name: overclaims(path.read_text(encoding="utf-8")) for path in pages}
    assert len(pages) > 5 and not {name: parts for name, parts in found.items() if parts}


def test_no_flag_and_no_message_calls_veil_encrypted_or_secure() -> None:
    paths = sorted((ROOT / "src" / "headrace").rglob("*.py"))
    found = {path.name: [part for text in literals(path) for part in overclaims(text)] for path in paths}
    assert not {name: parts for name, parts in found.items() if parts}
    flags = (ROOT / "tests" / "cli" / "flags.json").read_text(encoding="utf-8")
    assert not overclaims(flags.replace("\n", "\n\n"))


def test_the_search_sees_an_overclaim(tmp_path: Path) -> None:
    assert overclaims("One.\n\nVeil is\nSecure.") == ["Veil is\nSecure."]
    assert overclaims("| veil | encrypted |\n| split | open |") == ["| veil | encrypted |"]
    assert not overclaims("Veil is not encryption.") and overclaims("Veil is not slow. It is encrypted.")
    assert not overclaims(f"Veil is secure only as [who sees what]({QUALIFIED}) says.")
    source = tmp_path / "flag.py"
    source.write_text('note(f"The veil of {model} is encrypted.")', encoding="utf-8")
    assert any(overclaims(text) for text in literals(source))
