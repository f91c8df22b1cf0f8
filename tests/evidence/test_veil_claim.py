"""The claim of the veil in its quick size, and its instruments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")
pytest.importorskip("scipy", reason="headrace[privacy] is not installed")

from evidence.test_engine_claims import judge
from headrace.evidence.claims import equivariant_encryption as claim
from headrace.evidence.held import family, holds
from headrace.evidence.veil_checks import GreedyAnswer, attack, compare, decode_rates, margins
from headrace.evidence.veiled import TWINS, Pair, paced, write_plain, write_tiny
from headrace.model.loading import load_model
from headrace.spec.ledger import Ledger


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    return Pair.made(write_tiny(folder / "tiny"), folder, secret=bytes(range(32)))


def test_veil_quick() -> None:
    found = claim.run("quick")
    status = judge(found, 1)
    assert [status[text] for text in (claim.REWRITTEN, claim.ANSWERS, claim.CLOSE, claim.ATTACK)] == ["passed"] * 4
    assert status[claim.THROUGHPUT] == "open"
    assert found.numbers["apart"] < 1e-3 and found.numbers["recovered norms"] > 0.99


def test_the_plain_folder_holds_the_sources_values(pair: Pair, tmp_path: Path) -> None:
    write_plain(pair.source, tmp_path / "untied", "f32", tied=False)
    source, plain, untied = (load_model(path, Ledger()) for path in (pair.source, pair.plain, tmp_path / "untied"))
    assert plain.spec.tied and not untied.spec.tied and plain.tokenizer is None
    for name, tensor in source.weights.weights.items():
        for found in (plain, untied):
            assert np.array_equal(found.weights.weights[name].numpy(), tensor.numpy()), name
    assert np.array_equal(untied.weights.weights["head.weight"].numpy(), source.weights.weights["embed.weight"].numpy())


def test_an_answer_may_differ_only_where_rounding_may_choose() -> None:
    logits = np.array([[0.0, 3.0, 1.0], [2.0, 2.0005, 0.0]], np.float32)
    plain = GreedyAnswer([5], [1, 1], "ab")
    np.testing.assert_allclose(margins(logits), [2.0, 0.0005], atol=1e-6)
    near = compare(plain, GreedyAnswer([5], [1, 0], "aa"), logits, logits + 0.5)
    assert (near.at, near.wrong, near.apart) == (1, False, 0.5)
    far = compare(plain, GreedyAnswer([5], [0, 1], "ba"), logits, logits)
    assert far.at == 0 and far.wrong
    assert compare(plain, GreedyAnswer([5], [1, 1], "a?"), logits, logits).wrong
    assert not compare(plain, plain, logits, logits).wrong


def test_rates_are_measured_in_alternation_and_not_judged(pair: Pair, tmp_path: Path) -> None:
    with paced(claim.staged_in_bf16(pair, tmp_path), pair.tokens) as engines:
        plain, veiled = (engines[twin][1] for twin in ("plain", "veiled"))
        assert engines["untied"][1] == plain and pair.tokens.plain(veiled) == plain != veiled
        rates = decode_rates(engines, rounds=3, tokens=4)
    assert tuple(rates) == TWINS and all(len(found) == 3 and min(found) > 0 for found in rates.values())


def test_a_folder_gives_its_token_map_to_whoever_has_the_public_weights(pair: Pair) -> None:
    assert attack(pair.source, pair.veiled, pair.tokens).types.value > 0.99
    assert attack(pair.plain, pair.plain, pair.tokens).types.value < 0.1, "scored against another map"


SLEEPER = "import sys, time; kept = bytes.fromhex(sys.stdin.readline()); print(len(kept), flush=True); time.sleep(60)"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process's memory")
def test_a_secret_is_found_in_the_process_that_holds_it() -> None:
    secret = bytes(np.random.default_rng().integers(0, 256, 48, np.uint8))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], **pipes)  # type: ignore[call-overload]
    try:
        process.stdin.write(secret.hex() + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "48\n"
        if (found := holds(process.pid, [secret])) is None:
            pytest.skip("this system lets nobody look into a process")
        assert found and family(process.pid) == [process.pid]
        assert holds(process.pid, [secret[::-1]]) is False
    finally:
        process.kill()
        process.communicate()
