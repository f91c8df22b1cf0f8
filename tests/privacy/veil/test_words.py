"""Nothing calls the veil what it is not: encryption and security are named only to deny them or to cite the paper."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CLAIM = re.compile(r"\b(encrypt\w*|secure\w*|unbreakable|zero.knowledge|blind inference)\b", re.IGNORECASE)
DENIED = re.compile(
    r"\b(no|not|never)\b[^.]{0,30}\b(encrypt|secur)|Equivariant Encryption|age-encryption|encrypt\("
    r"|decrypt\(|_encryptor|\.encryptor",
    re.IGNORECASE,
)


def claims(text: str) -> list[str]:
    return [line for line in text.splitlines() if CLAIM.search(line) and not DENIED.search(line)]


def test_no_page_flag_or_message_overstates() -> None:
    files = [
        *(ROOT / "src/headrace/privacy/veil").glob("*.py"),
        ROOT / "src/headrace/cli/veil.py",
        ROOT / "docs/veil.md",
    ]
    assert len(files) > 15
    found = {file.name: lines for file in files if (lines := claims(file.read_text(encoding="utf-8")))}
    assert not found


def test_no_other_page_or_message_that_names_the_veil_overstates() -> None:
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src/headrace").rglob("*.py")]
    texts = {file.name: file.read_text(encoding="utf-8") for file in files}
    naming = {
        name: "\n".join(line for line in text.splitlines() if "veil" in line.lower()) for name, text in texts.items()
    }
    assert sum(map(bool, naming.values())) > 15
    assert not {name: lines for name, text in naming.items() if (lines := claims(text))}


def test_the_search_can_find() -> None:
    assert claims("Your prompts are encrypted.") and claims("A secure veil")
    assert not claims("It is no encryption.")
