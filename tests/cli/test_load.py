"""The load generator's arithmetic: lengths, arrivals, percentiles, and what counts as an error."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest

from headrace.cli.bench import show_server
from headrace.cli.load import Lengths, Outcome, Traffic, body_of, percentiles, planned, read_chunk, report
from headrace.spec.errors import InvalidRequest


def traffic(rate: float = 0.0, requests: int = 8, seed: int = 0) -> Traffic:
    lengths = Lengths.parse("uniform:4:9")
    return Traffic("http://127.0.0.1:1/v1", "m", requests, 2, rate, lengths, lengths, seed)


def test_lengths_keep_their_distribution() -> None:
    source = random.Random(1)
    assert {Lengths.parse("7").draw(source) for _ in range(20)} == {7}
    assert {Lengths.parse("uniform:3:5").draw(source) for _ in range(200)} == {3, 4, 5}
    normal = [Lengths.parse("normal:100:10").draw(source) for _ in range(2000)]
    assert abs(statistics.mean(normal) - 100) < 1
    assert abs(statistics.stdev(normal) - 10) < 1
    assert min(Lengths.parse("normal:0:5").draw(source) for _ in range(50)) == 1


@pytest.mark.parametrize("text", ["", "many", "uniform:3", "fixed:1:2", "zipf:3", "fixed:-1"])
def test_a_wrong_length_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match="uniform:16:256"):
        Lengths.parse(text)


def test_arrivals_are_a_seeded_poisson_process() -> None:
    plan = planned(traffic(rate=50.0, requests=4000))
    gaps = [b.arrival - a.arrival for a, b in itertools.pairwise(plan)]
    assert abs(statistics.mean(gaps) * 50 - 1) < 0.05
    assert abs(statistics.stdev(gaps) * 50 - 1) < 0.1, "exponential gaps: deviation equals mean"
    assert [o.arrival for o in planned(traffic(rate=50.0, requests=4000))] == [o.arrival for o in plan]
    assert [o.arrival for o in planned(traffic(rate=50.0, requests=4000, seed=1))] != [o.arrival for o in plan]
    assert {o.arrival for o in planned(traffic(rate=0.0))} == {0.0}


def test_prompts_repeat_with_the_seed_and_have_the_length_asked_for() -> None:
    one, two = planned(traffic())[0], planned(traffic())[0]
    first, second = body_of(traffic(), "m", one), body_of(traffic(), "m", two)
    assert first == second
    assert len(first["messages"][0]["content"].split()) == one.prompt_words
    assert "ignore_eos" not in first, "a field that other servers do not know is sent only on request"


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    random.Random(0).shuffle(values)
    assert percentiles(values) == {"mean": 50.5, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
    assert percentiles([3.0]) == {"mean": 3.0, "p50": 3.0, "p90": 3.0, "p99": 3.0, "max": 3.0}
    assert percentiles([]) is None


def test_a_report_counts_tokens_times_and_errors() -> None:
    good = Outcome(arrival=1.0, prompt_words=4, wanted_tokens=3)
    read_chunk({"choices": [{"delta": {"role": "assistant"}}]}, 1.5, good)
    for at in (2.0, 2.5, 3.0):
        read_chunk({"choices": [{"delta": {"content": "x"}}]}, at, good)
    read_chunk({"choices": [], "usage": {"completion_tokens": 5}}, 3.1, good)
    bad = Outcome(arrival=0.0, prompt_words=4, wanted_tokens=3, error="HTTP 429")
    result = report([good, bad], 4.0, "m")
    assert (result["succeeded"], result["errors"]) == (1, {"HTTP 429": 1})
    assert result["output_tokens"] == 5
    assert result["first_token_seconds"]["p50"] == 1.0
    assert result["request_seconds"]["p99"] == 2.0
    assert result["seconds_per_token"]["p50"] == pytest.approx(0.25)


def answered(*arrivals: float, tokens: int) -> Outcome:
    outcome = Outcome(arrival=0.0, prompt_words=4, wanted_tokens=tokens)
    for at in arrivals:
        read_chunk({"choices": [{"delta": {"content": "x"}}]}, at, outcome)
    read_chunk({"choices": [], "usage": {"completion_tokens": tokens}}, arrivals[-1], outcome)
    return outcome


def test_tokens_that_arrive_together_have_no_pace(capsys: pytest.CaptureFixture[str]) -> None:
    """One piece says nothing of the time between tokens; pieces close to each other are shown as what they are."""
    about = {"traffic": {"concurrency": 1}}
    one = report([answered(0.5, tokens=16)], 1.0, "m")
    assert one["seconds_per_token"] is None
    show_server(one | about)
    shown = capsys.readouterr()
    assert "seconds per token\t-\t-\t-\t-\n" in shown.out and "0.000\t" not in shown.out
    assert "came in one piece" in shown.err
    close = report([answered(0.5, 0.5008, tokens=9)], 1.0, "m")
    show_server(close | about)
    assert "seconds per token\t0.00010" in capsys.readouterr().out
