"""`headrace bench` measures the real engine, and a real server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli.load import Lengths, Traffic, run_load
from serving import running_server


def test_offline_figures_come_from_the_steps(headrace, smollm2: Path) -> None:
    sizes = ("--prompt-tokens", "20", "--new-tokens", "5", "--concurrency", "1,3", "--repeats", "1")
    result = headrace("bench", str(smollm2), *sizes, "--threads", "1", "--json", "--output", "offline.json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert json.loads(Path("offline.json").read_text(encoding="utf-8")) == report
    assert {"hardware", "python", "versions"} <= report["machine"].keys()
    assert [part["concurrency"] for part in report["results"]] == [1, 3]
    for part in report["results"]:
        (seen,) = part["rounds"]
        assert seen["prefill_tokens"] == part["concurrency"] * 20
        assert seen["decode_tokens"] == part["concurrency"] * 4
        assert 0 < seen["prefill_seconds"] + seen["decode_seconds"] <= seen["wall_seconds"]
        assert part["decode_tokens_per_second"] == seen["decode_tokens"] / seen["decode_seconds"]


def test_a_profile_names_where_the_time_goes(headrace, smollm2: Path) -> None:
    sizes = ("--profile", "--prompt-tokens", "12", "--new-tokens", "12", "--threads", "1")
    result = headrace("bench", str(smollm2), *sizes, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    served = report["served"]
    for parts in (report["decode"], report["request"], served["parts"]):
        assert all(part["seconds"] >= 0 for part in parts), parts
    decode = {part["part"]: part["seconds"] for part in report["decode"]}
    assert {"schedule", "sample", "detokenise", "kernels: attention", "kernels: head"} <= decode.keys()
    for parts in (report["decode"], served["parts"]):
        assert sum(part["share"] for part in parts) == pytest.approx(1)
    assert 0 < report["python_share"] < 1 and 0.5 < report["attributed"] <= 1
    named = {part["part"]: part["seconds"] for part in served["parts"]}
    assert {"tokenise and open", "prefill", "schedule", "kernels and backend", "sample", "detokenise"} <= named.keys()
    http = sum(part["share"] for part in served["parts"] if part["part"].startswith("HTTP"))
    assert served["http_share"] == pytest.approx(http) and http > 0
    assert served["attributed"] == pytest.approx(1 - named["between steps"] / sum(named.values()))
    shown = headrace("bench", str(smollm2), *sizes).stdout
    assert "Python" in shown and "the same over HTTP" in shown


@pytest.fixture(scope="module")
def url(smollm2: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "headrace.cli", "serve", str(smollm2), "--model-name", "tested"]
    words += ["--port", "0", "--threads", "1"]
    with running_server(words) as url:
        yield url


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_server_under_load(url: str, endpoint: str) -> None:
    sizes = Lengths.parse("uniform:4:12"), Lengths.parse("uniform:2:5")
    traffic = Traffic(url, None, 6, 3, 20.0, *sizes, seed=1, endpoint=endpoint, ignore_eos=True)
    report = asyncio.run(run_load(traffic))
    assert (report["model"], report["succeeded"], report["errors"]) == ("tested", 6, {})
    assert 6 * 2 <= report["output_tokens"] <= 6 * 5
    first, whole = report["first_token_seconds"], report["request_seconds"]
    assert 0 < first["p50"] <= first["p99"] <= whole["max"]
    again = asyncio.run(run_load(traffic))
    assert again["output_tokens"] == report["output_tokens"], "lengths are drawn from the seed"


def test_refusals_are_counted_as_errors(url: str) -> None:
    lengths = Lengths.parse("4")
    report = asyncio.run(run_load(Traffic(url, "no-such-model", 3, 2, 0.0, lengths, lengths, seed=0)))
    assert (report["succeeded"], report["errors"]) == (0, {"HTTP 404": 3})
    assert report["first_token_seconds"] is None


def test_the_verb_prints_percentiles(headrace, url: str) -> None:
    sizes = ("--prompt-tokens", "4", "--new-tokens", "3", "--requests", "4", "--concurrency", "2")
    result = headrace("bench", "--url", url, *sizes)
    assert result.exit_code == 0, result.output
    assert "4 of 4 requests at concurrency 2; no errors" in result.stderr
    assert {"p50", "p90", "p99"} <= set(result.stdout.split())
    report = json.loads(headrace("bench", "--url", url, *sizes, "--json", "--api-key", "secret").stdout)
    assert "secret" not in json.dumps(report)
