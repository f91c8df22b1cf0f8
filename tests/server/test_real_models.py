"""SmolLM2 talks and MiniLM embeds, through the official client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from headrace.engine.engine import Engine
from headrace.server.config import ServerConfig
from headrace.spec.errors import HeadraceError
from headrace.spec.options import EngineOptions
from server.twin import serving


@pytest.fixture(scope="module")
def minilm() -> Iterator[Engine]:
    from headrace.model.catalogue import resolve

    try:
        path = resolve("minilm-l6")
    except HeadraceError as error:
        pytest.skip(f"minilm-l6 cannot be pulled here: {error}")
    with Engine.load(path, EngineOptions()) as engine:
        yield engine


def test_smollm2_answers(smollm2: Path) -> None:
    with (
        Engine.load(smollm2, EngineOptions(state_memory=64)) as engine,
        serving(engine, ServerConfig(model_name="smollm2")) as url,
    ):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
        question = [{"role": "user", "content": "What is the capital of France?"}]
        asked = dict(model="smollm2", messages=question, max_tokens=16, temperature=0)
        whole = client.chat.completions.create(**asked).choices[0].message.content
        parts = [c.choices[0].delta.content or "" for c in client.chat.completions.create(**asked, stream=True)]
        assert "Paris" in whole and "".join(parts) == whole


def test_an_encoder_embeds_and_does_not_generate(minilm: Engine) -> None:
    with serving(minilm, ServerConfig(model_name="minilm")) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
        texts = ["A cat sits on the mat.", "A kitten is on a rug.", "Interest rates rose again."]
        cat, kitten, rates = (item.embedding for item in client.embeddings.create(model="minilm", input=texts).data)
        near, far = dot(cat, kitten), dot(cat, rates)
        assert near > 0.5 > far
        with pytest.raises(openai.BadRequestError, match="encoder"):
            client.completions.create(model="minilm", prompt="x")


def test_a_second_model_embeds(engine: Engine, minilm: Engine) -> None:
    with serving(engine, ServerConfig(model_name="twin"), embedder=minilm) as url:
        names = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
        assert names == ["twin", minilm.model_name]
        reply = httpx.post(f"{url}/v1/embeddings", json={"input": "hello"}).json()
        assert reply["model"] == minilm.model_name and len(reply["data"][0]["embedding"]) == 384
        assert httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "model": minilm.model_name})
        assert refused.status_code == 400 and "encoder" in refused.json()["error"]["message"]


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
