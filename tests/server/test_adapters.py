"""Adapters over HTTP: chosen by field or by model name, at any strength, refused where they are not there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.engine.engine import Engine
from headrace.spec.options import EngineOptions
from server.twin import serving, write_adapter_of

PROMPT = {"prompt": "The river", "max_tokens": 8, "temperature": 0, "ignore_eos": True, "logprobs": 2}


@pytest.fixture(scope="module")
def http(twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folders = [write_adapter_of(twin, tmp_path_factory.mktemp(name), seed) for seed, name in ((1, "one"), (2, "two"))]
    adapters = tuple(f"{folder.name[:3]}={folder}" for folder in folders)
    with (
        Engine.load(twin, EngineOptions(threads=1, state_memory=8, adapter=adapters)) as engine,
        serving(engine) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def post(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    reply = http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def answer(http: httpx.Client, **how: Any) -> Any:
    choice = post(http, "/v1/completions", **PROMPT, **how)["choices"][0]
    return choice["text"], choice["logprobs"]


def refusal(http: httpx.Client, path: str = "/v1/completions", **body: Any) -> tuple[int, str, str]:
    reply = http.post(path, json=body)
    error = reply.json()["error"]
    return reply.status_code, error["param"], error["message"]


def test_by_field_by_model_and_by_strength(http: httpx.Client) -> None:
    base = answer(http)
    one, two = answer(http, adapter="one"), answer(http, adapter="two")
    half = answer(http, adapter="one", adapter_scale=0.5)
    assert all(a != b for a, b in ((base, one), (base, two), (one, two), (one, half), (base, half)))
    assert answer(http, model="one") == one and answer(http, model="two", adapter="two") == two
    assert answer(http, model="twin", adapter="one") == one
    assert answer(http, adapter="one", adapter_scale=0) == base


def test_requests_at_the_same_time_do_not_change_each_other(http: httpx.Client) -> None:
    uses: list[dict[str, Any]] = [{}, {"adapter": "one"}, {"adapter": "two"}, {"adapter": "one", "adapter_scale": -1}]
    alone = [answer(http, **use) for use in uses]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda number: answer(http, **uses[number % 4]), range(16)))
    assert together == alone * 4


def test_the_reply_names_it(http: httpx.Client) -> None:
    reply = post(http, "/v1/completions", **PROMPT, model="one", adapter_scale=0.5)
    assert reply["model"] == "one"
    assert (reply["headrace"]["adapter"], reply["headrace"]["adapter_scale"]) == ("one", 0.5)
    assert "adapter" not in post(http, "/v1/completions", **PROMPT)["headrace"]


def test_chat_streams_and_embeddings(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "The river"}]
    how: dict[str, Any] = {"messages": messages, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    texts = {
        post(http, "/v1/chat/completions", **how, **use)["choices"][0]["message"]["content"]
        for use in ({}, {"adapter": "one"}, {"model": "two"})
    }
    assert len(texts) == 3
    how["compute"] = {"strategy": "single", "seed": 1}
    del how["ignore_eos"]
    searched = [post(http, "/v1/chat/completions", **how, **use) for use in ({}, {"adapter": "one"}, {"model": "two"})]
    assert len({reply["choices"][0]["message"]["content"] for reply in searched}) == 3
    assert [reply["headrace"].get("adapter") for reply in searched] == [None, "one", "two"]
    body = {**PROMPT, "adapter": "one", "stream": True}
    lines = [line for line in http.post("/v1/completions", json=body).text.split("\n") if line.startswith("data: {")]
    assert '"adapter":"one"' in lines[0]
    vectors = [
        post(http, "/v1/embeddings", input="The river", **use)["data"][0]["embedding"]
        for use in ({}, {"adapter": "one"}, {"model": "one"}, {"adapter": "one", "adapter_scale": 0})
    ]
    assert vectors[0] == vectors[3] != vectors[1] == vectors[2]


def test_models_lists_them(http: httpx.Client) -> None:
    cards = http.get("/v1/models").json()["data"]
    assert [(card["id"], card.get("parent")) for card in cards] == [("twin", None), ("one", "twin"), ("two", "twin")]
    assert http.get("/v1/models/two").json()["parent"] == "twin"
    assert all(card["object"] == "model" for card in cards)


def test_refusals(http: httpx.Client) -> None:
    status, param, message = refusal(http, **PROMPT, adapter="three")
    assert (status, param) == (400, "adapter") and "use one of one, two" in message
    status, param, message = refusal(http, **PROMPT, model="one", adapter="two")
    assert (status, param) == (400, "adapter") and "send one of them" in message
    assert refusal(http, **PROMPT, adapter_scale=0.5)[:2] == (400, "adapter_scale")
    assert refusal(http, **PROMPT, adapter="one", adapter_scale=101)[:2] == (400, "adapter_scale")
    assert refusal(http, **PROMPT, adapter=["one"])[:2] == (400, "adapter")
    assert refusal(http, **PROMPT, model="three")[0] == 404
    assert refusal(http, "/v1/embeddings", input="a", adapter="three")[:2] == (400, "adapter")
    asked = {"messages": [{"role": "user", "content": "a"}], "compute": {"strategy": "single"}, "adapter": "three"}
    assert refusal(http, "/v1/chat/completions", **asked)[:2] == (400, "adapter")
