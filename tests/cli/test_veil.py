"""`headrace veil` from key to answer: in this process, and with server and proxy in processes of their own."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")
pytest.importorskip("transformers", reason="the twin is made by transformers")

import pyrage

from headrace.cli.main import app
from server.twin import write_twin
from serving import running_server


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin(tmp_path_factory.mktemp("twin"))


@pytest.fixture
def identity(tmp_path: Path) -> tuple[str, str]:
    """(recipient, file of the identity)."""
    made = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"# public key: {made.to_public()}\n{made}\n", encoding="utf-8")
    return str(made.to_public()), str(tmp_path / "identity")


def veil(*words: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["veil", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def test_from_key_to_verified_model(twin: Path, tmp_path: Path, identity: tuple[str, str]) -> None:
    key, folder, (recipient, secret) = tmp_path / "client.key", tmp_path / "veiled", identity
    made = json.loads(veil("keygen", twin, "--out", key, "--recipient", recipient, "--budget", 500, "--json").stdout)
    assert (made["tokens"], made["epoch"]) == (500, 0) and stat.S_IMODE(key.stat().st_mode) == 0o600
    opened = ("--key", key, "--identity", secret)
    manifest = json.loads(veil("export", twin, *opened, "--out", folder, "--dtype", "bf16", "--json").stdout)
    assert manifest["key_id"] == made["key_id"] and manifest["dtype"] == "bf16"
    assert "files are whole" in veil("verify", folder).output
    assert "made with this key" in veil("verify", folder, *opened).output
    assert "exists" in veil("keygen", twin, "--out", key, "--recipient", recipient, code=2).output
    assert "--recipient" in veil("rotate", key, "--identity", secret, code=2).output
    veil("rotate", key, "--identity", secret, "--recipient", recipient)
    assert "epoch 1" in veil("verify", folder, *opened, code=2).output
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert "tokenizer.json" in veil("verify", folder, code=2).output


def test_a_passphrase_from_a_file_or_asked(twin: Path, tmp_path: Path) -> None:
    key, words = tmp_path / "client.key", tmp_path / "words"
    words.write_text("weir and wheel\n", encoding="utf-8")
    asked = CliRunner().invoke(app, ["veil", "keygen", str(twin), "--out", str(key)], input="sluice\nsluice\n")
    assert asked.exit_code == 0, asked.output
    refused = veil("rotate", key, "--passphrase-file", words, code=2)
    assert "does not open" in refused.output
    words.write_text("\n", encoding="utf-8")
    assert "empty" in veil("rotate", key, "--passphrase-file", words, code=2).output


def test_half_precision_is_refused(twin: Path, tmp_path: Path, identity: tuple[str, str]) -> None:
    key = tmp_path / "client.key"
    veil("keygen", twin, "--out", key, "--recipient", identity[0])
    words = ("export", twin, "--key", key, "--identity", identity[1], "--out", tmp_path / "v", "--dtype", "f16")
    assert "half precision" in veil(*words, code=2).output
    veil(*words, "--condition", "1")


def test_the_proxy_has_no_labels(tmp_path: Path) -> None:
    refusal = veil("proxy", "none", "--key", tmp_path / "none.key", "--labels", "policy.toml", code=2)
    assert "--labels is for headrace serve" in " ".join(refusal.output.split())


def test_a_server_without_the_key_answers_through_the_proxy(
    twin: Path, tmp_path: Path, identity: tuple[str, str]
) -> None:
    key, folder = tmp_path / "client.key", tmp_path / "veiled"
    veil("keygen", twin, "--out", key, "--recipient", identity[0])
    veil("export", twin, "--key", key, "--identity", identity[1], "--out", folder)
    command = [sys.executable, "-m", "headrace.cli"]
    small = ["--port", "0", "--state-memory", "8", "--threads", "1", "--state-type", "fp32"]
    body = {"messages": [{"role": "user", "content": "What is a weir?"}], "max_tokens": 12, "temperature": 0}
    texts = []
    with running_server([*command, "serve", str(folder), *small]) as veiled:
        held = ["--key", str(key), "--identity", identity[1], "--url", veiled, "--port", "0"]
        with running_server([*command, "veil", "proxy", str(twin), *held]) as url:
            reply = httpx.post(f"{url}/chat/completions", json=body, timeout=60).json()
            texts.append(reply["choices"][0]["message"]["content"])
            assert "obfuscation" in reply["headrace"]["profile"]
        veil("rotate", key, "--identity", identity[1], "--recipient", identity[0])
        again = ("proxy", twin, "--key", key, "--identity", identity[1], "--url", veiled, "--port", "0")
        assert "in epoch 0 of this key, which is in epoch 1" in " ".join(veil(*again, code=1).output.split())
        direct = httpx.post(f"{veiled}/chat/completions", json=body, timeout=60)
        assert direct.status_code == 400 and direct.json()["error"]["code"] == "no_tokenizer"
    with running_server([*command, "serve", str(twin), *small]) as plain:
        texts.append(
            httpx.post(f"{plain}/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]["content"]
        )
    assert texts[0] == texts[1] != ""
    assert json.loads((tmp_path / "client.key.spent").read_text("utf-8"))["tokens"] > 12
