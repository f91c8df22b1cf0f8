"""schemathesis drives the server from its own description: no case may end in a 5xx or an undocumented answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from headrace.engine.engine import Engine

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


def fuzz(url: str, cases: int) -> dict[int, int]:
    """Statuses of `cases` generated requests over all operations, as many wrong as right ones."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    operations = [result.ok() for result in schema.get_all_operations()]
    strategies = [operation.as_strategy(generation_mode=mode) for operation in operations for mode in modes]
    counts: dict[int, int] = {}

    @seed(20)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(strategies))
    def run(case: Any) -> None:
        reply = case.call(base_url=url)
        case.validate_response(reply, checks=CHECKS)
        counts[reply.status_code] = counts.get(reply.status_code, 0) + 1

    run()
    return counts


def test_fuzz(engine: Engine, url: str) -> None:
    counts = fuzz(url, 150)
    assert max(counts) < 500 and 200 in counts and 400 in counts, counts
    assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.prove
def test_fuzz_2000(engine: Engine, url: str, figures: dict) -> None:
    counts = fuzz(url, 2000)
    figures |= {"cases": sum(counts.values()), "statuses": {str(status): n for status, n in counts.items()}}
    assert sum(counts.values()) >= 2000 and max(counts) < 500, counts


def test_the_description_covers_every_route(http: httpx.Client) -> None:
    paths = set(http.get("/openapi.json").json()["paths"])
    posts = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize"}
    assert paths == posts | {"/v1/models", "/v1/models/{model}", "/health", "/metrics", "/"}


def test_metrics(http: httpx.Client) -> None:
    http.post("/v1/completions", json={"prompt": "count", "max_tokens": 5, "ignore_eos": True})
    http.post("/v1/completions", json={"prompt": "count", "wrong": 5})
    lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if not line.startswith("#"))
    assert float(lines["headrace_sampled_tokens_total"]) >= 5 and float(lines["headrace_steps_total"]) >= 5
    assert float(lines['headrace_requests_total{route="/v1/completions",status="200"}']) >= 1
    assert float(lines['headrace_requests_total{route="/v1/completions",status="400"}']) >= 1
    assert float(lines["headrace_first_token_seconds_count"]) >= 1 and float(lines["headrace_token_seconds_count"]) >= 1
    assert float(lines["headrace_pages_total"]) > 0 and float(lines["headrace_healthy"]) == 1
