"""Key files: what opens them, who may read them, how many tokens they are good for."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")

import pyrage

from headrace.cli.veil import keygen
from headrace.privacy.veil.errors import KeyFileError, TokensSpent
from headrace.privacy.veil.keyfile import BLOCK, STRICT_BUDGET, ClientKey, Lock, Opener, read_key, spent_file, write_key
from headrace.privacy.veil.keys import Master

ROOT = Path(__file__).resolve().parents[3]
KEY = ClientKey(Master(bytes(range(32)), "ab" * 32), vocab=96, budget=100, created="2026-01-01", name="twin")
IDENTITY = pyrage.x25519.Identity.generate()
LOCK, OPENER = Lock((str(IDENTITY.to_public()),)), Opener(str(IDENTITY))


def test_a_key_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, LOCK)
    key, budget = read_key(path, OPENER)
    assert key == KEY and budget.tokens == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    data = path.read_bytes()
    assert data.startswith(b"age-encryption.org/v1") and KEY.master.secret.hex().encode() not in data
    assert [entry.name for entry in tmp_path.iterdir()] == ["k"], "nothing plain is left beside it"


def test_the_default_budget_is_the_least_that_was_measured_and_none_is_safe() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "veil_attacks.json").read_text(encoding="utf-8"))["rows"]
    found = [(row["setting"], row["recovery"]["mass"]) for row in rows if row["attack"] == "bigram"]
    for domain in ("in-domain", "cross-domain"):
        assert min(about["tokens"] for about, _ in found if about["domain"] == domain) == STRICT_BUDGET
    assert all(mass["low"] > mass["chance"] for _, mass in found), "docs/veil.md says that no count is safe"
    assert signature(keygen).parameters["budget"].default == ClientKey(KEY.master, 96).budget == STRICT_BUDGET


def test_a_passphrase_opens_what_it_closed(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, Lock(passphrase="weir and wheel"))
    assert read_key(path, Opener(passphrase="weir and wheel"))[0] == KEY
    with pytest.raises(KeyFileError, match="does not open"):
        read_key(path, Opener(passphrase="wheel and weir"))


def test_what_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, LOCK)
    for wrong in (Opener(str(pyrage.x25519.Identity.generate())), Opener("AGE-SECRET-KEY-1NONE"), Opener()):
        with pytest.raises(KeyFileError, match="does not open"):
            read_key(path, wrong)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(KeyFileError, match="does not open"):
        read_key(path, OPENER)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, LOCK)
    os.chmod(path, mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(path, OPENER)


def test_a_key_file_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, LOCK)
    with pytest.raises(KeyFileError, match="rotate"):
        write_key(path, KEY.rotated(), LOCK)
    write_key(path, KEY.rotated(), LOCK, replace_old=True)
    assert read_key(path, OPENER)[0].master.epoch == 1


@pytest.mark.parametrize("lock", [Lock(), Lock(("age1no",)), Lock(LOCK.recipients, "both")])
def test_a_lock_is_one_of_two(tmp_path: Path, lock: Lock) -> None:
    with pytest.raises(KeyFileError):
        write_key(tmp_path / "k", KEY, lock)
    assert not (tmp_path / "k").exists()


def test_a_key_that_contradicts_itself_is_refused() -> None:
    packed = KEY.packed()
    assert ClientKey.unpacked(packed) == KEY
    for changed in (packed.replace(b'"epoch": 0', b'"epoch": 1'), b"[]", b"{}", packed.replace(b"/v1", b"/v2")):
        with pytest.raises(KeyFileError):
            ClientKey.unpacked(changed)


def test_tokens_are_counted_across_processes_and_end_at_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, LOCK)
    budget = read_key(path, OPENER)[1]
    with pytest.raises(TokensSpent):
        budget.charge(100)
    budget.charge(50)
    assert budget.count(10)
    budget.settle()
    assert stat.S_IMODE(spent_file(path).stat().st_mode) == 0o600
    again = read_key(path, OPENER)[1]
    assert again.tokens == 60
    with pytest.raises(TokensSpent, match="rotate"):
        again.charge(40)
    again.charge(38)
    assert again.count(1) and not again.count(1)
    write_key(path, KEY.rotated(), LOCK, replace_old=True)
    assert read_key(path, OPENER)[1].tokens == 0, "another epoch has a token map of its own"
    spent_file(path).write_text("?")
    with pytest.raises(KeyFileError, match="damaged"):
        read_key(path, OPENER)


def test_two_proxies_of_one_key_share_its_budget(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, LOCK)
    first, second = (read_key(path, OPENER)[1] for _ in range(2))
    first.charge(40)
    set_aside = read_key(path, OPENER)[1].tokens - first.tokens
    second.charge(30)
    assert first.tokens == 40 and second.tokens == 70 + set_aside and second.count(5)
    second.settle()
    with pytest.raises(TokensSpent):
        first.charge(25)
    first.charge(24)
    first.settle()
    assert read_key(path, OPENER)[1].tokens == 99


def test_what_a_killed_proxy_passed_was_counted_before(tmp_path: Path) -> None:
    path, large = tmp_path / "k", replace(KEY, budget=100_000)
    write_key(path, large, LOCK)
    budget = read_key(path, OPENER)[1]
    budget.charge(10)
    for passed in range(11, 3 * BLOCK):
        assert read_key(path, OPENER)[1].tokens >= passed, "counted before it passes"
        assert budget.count(1) and budget.tokens == passed
    assert passed < read_key(path, OPENER)[1].tokens <= passed + BLOCK
    budget.settle()
    assert read_key(path, OPENER)[1].tokens == passed


def test_a_proxy_of_the_epoch_before_does_not_count_over_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, LOCK)
    old = read_key(path, OPENER)[1]
    old.charge(10)
    write_key(path, KEY.rotated(), LOCK, replace_old=True)
    fresh = read_key(path, OPENER)[1]
    fresh.charge(20)
    fresh.settle()
    for late in (lambda: old.charge(1), lambda: old.count(50), old.settle):
        with pytest.raises(KeyFileError, match="another epoch"):
            late()
    assert read_key(path, OPENER)[1].tokens == 20


def test_a_proxy_that_counted_nothing_yet_leaves_the_next_epochs_count_alone(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_key(path, KEY, LOCK)
    old = read_key(path, OPENER)[1]
    write_key(path, KEY.rotated(), LOCK, replace_old=True)
    fresh = read_key(path, OPENER)[1]
    fresh.charge(20)
    fresh.settle()
    with pytest.raises(KeyFileError, match="another epoch"):
        old.charge(1)
    assert read_key(path, OPENER)[1].tokens == 20
    write_key(path, KEY, LOCK, replace_old=True)
    with pytest.raises(KeyFileError, match="start again with the rotated key"):
        read_key(path, OPENER)
    write_key(path, replace(KEY, master=Master(bytes(32), "ab" * 32)), LOCK, replace_old=True)
    assert read_key(path, OPENER)[1].tokens == 0, "another key begins anew"


def test_nothing_that_lies_in_the_way_is_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.privacy.veil.keyfile.secrets.token_hex", lambda count: "known")
    (tmp_path / "other").write_text("as it was")
    (tmp_path / "k.known.new").symlink_to(tmp_path / "other")
    with pytest.raises(FileExistsError):
        write_key(tmp_path / "k", KEY, LOCK, replace_old=True)
    assert (tmp_path / "other").read_text() == "as it was"


def test_no_moment_lies_between_looking_and_writing(tmp_path: Path) -> None:
    """A link to nowhere is not there for who looks, and is for who writes."""
    path = tmp_path / "k"
    path.symlink_to(tmp_path / "elsewhere")
    assert not path.exists()
    with pytest.raises(KeyFileError, match="exists"):
        write_key(path, KEY, LOCK)
    assert path.is_symlink() and not (tmp_path / "elsewhere").exists()


def test_secrets_are_not_shown() -> None:
    shown = repr((KEY, Lock(passphrase="weir"), Opener("AGE-SECRET-KEY-1X", "weir")))
    assert "weir" not in shown and "AGE-SECRET" not in shown and KEY.master.secret.hex() not in shown
    assert replace(KEY, budget=5) != KEY
