"""Every refusal: its status, the field it names, and its shape."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from headrace.engine.engine import Engine
from headrace.server.config import ServerConfig
from headrace.server.errors import STOPPED
from headrace.spec.options import EngineOptions
from server.twin import CONTEXT, VOCAB, serving, wait_until, write_twin

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]

REFUSED = [
    (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools"),
    (CHAT, {"messages": HELLO, "tool_choice": "auto"}, "tool_choice"),
    (CHAT, {"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format"),
    (CHAT, {"messages": HELLO, "functions": [{}]}, "functions"),
    (CHAT, {"messages": HELLO, "modalities": ["audio"]}, "modalities"),
    (CHAT, {"messages": HELLO, "audio": {}}, "audio"),
    (CHAT, {"messages": HELLO, "reasoning_effort": "high"}, "reasoning_effort"),
    (CHAT, {"messages": HELLO, "compute": {"strategy": "vote"}}, "compute"),
    (CHAT, {"messages": HELLO, "n": 1000}, "n"),
    (CHAT, {"messages": HELLO, "n": 0}, "n"),
    (CHAT, {"messages": HELLO, "nonsense": 1}, "nonsense"),
    (CHAT, {"messages": HELLO, "temperature": -1}, "temperature"),
    (CHAT, {"messages": HELLO, "temperature": "hot"}, "temperature"),
    (CHAT, {"messages": HELLO, "top_p": 0}, "top_p"),
    (CHAT, {"messages": HELLO, "presence_penalty": 3}, "presence_penalty"),
    (CHAT, {"messages": HELLO, "repetition_penalty": 1e-300}, "repetition_penalty"),
    (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (CHAT, {"messages": HELLO, "top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    (CHAT, {"messages": HELLO, "stop": ["a", "b", "c", "d", "e"]}, "stop"),
    (CHAT, {"messages": HELLO, "stop": ""}, "stop"),
    (CHAT, {"messages": HELLO, "stop_token_ids": [VOCAB]}, "stop_token_ids"),
    (CHAT, {"messages": HELLO, "logit_bias": {str(VOCAB): 1}}, "logit_bias"),
    (CHAT, {"messages": HELLO, "logit_bias": {"a": 1}}, "logit_bias"),
    (CHAT, {"messages": HELLO, "stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"messages": HELLO, "stream": True, "stream_options": {"other": True}}, "stream_options.other"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {}, "messages"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
    (CHAT, {"messages": [*HELLO, {"role": "assistant", "content": "x", "tool_calls": []}]}, "messages[1].tool_calls"),
    (TEXT, {"prompt": "x", "best_of": 2}, "best_of"),
    (TEXT, {"prompt": "x", "suffix": "y"}, "suffix"),
    (TEXT, {"prompt": [VOCAB]}, "prompt"),
    (TEXT, {"prompt": [-1]}, "prompt"),
    (TEXT, {"prompt": []}, "prompt"),
    (TEXT, {"prompt": [[]]}, "prompt"),
    (TEXT, {"prompt": ["a", 1]}, "prompt"),
    (TEXT, {"prompt": [1] * (CONTEXT + 1)}, "prompt"),
    (TEXT, {"prompt": "x", "logprobs": True}, "logprobs"),
    (TEXT, {"prompt": "x", "seed": -1}, "seed"),
    (TEXT, {"prompt": ["x"] * 100, "n": 2}, "n"),
    ("/v1/embeddings", {"input": "x", "dimensions": 3}, "dimensions"),
    ("/v1/embeddings", {"input": "x", "encoding_format": "int8"}, "encoding_format"),
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"messages": HELLO, "add_special_tokens": True}, "add_special_tokens"),
    ("/detokenize", {"tokens": [VOCAB]}, "tokens"),
]


@pytest.mark.parametrize(("path", "body", "param"), REFUSED)
def test_a_wrong_field_is_named(http: httpx.Client, path: str, body: dict, param: str) -> None:
    reply = http.post(path, json=body)
    error = reply.json()["error"]
    assert reply.status_code == 400, error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert (
        error["param"] is not None and error["param"].split("[")[0].split(".")[0] == param.split("[")[0].split(".")[0]
    )
    assert error["message"].endswith(".")


@pytest.mark.parametrize("name", ["tools", "functions"])
def test_neutral_values_pass(http: httpx.Client, name: str) -> None:
    body = {"messages": HELLO, "max_tokens": 1, name: [], "tool_choice": "none", "response_format": {"type": "text"}}
    body |= {"temperature": None, "n": None, "stop": None, "logit_bias": None, "modalities": ["text"], "seed": None}
    assert http.post(CHAT, json=body).status_code == 200


def test_developer_is_system_and_parts_are_joined(http: httpx.Client) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    one = http.post("/tokenize", json={"messages": [{"role": "developer", "content": parts}]}).json()
    other = http.post("/tokenize", json={"messages": [{"role": "system", "content": "one\ntwo"}]}).json()
    assert one["tokens"] == other["tokens"] and one["count"] == len(one["tokens"])


def test_tokenize_and_back(http: httpx.Client) -> None:
    text = "naïve 🦦\n\x00 end"
    ids = http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert len(ids) == len(text.encode())
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"prompt": text}


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b'{"messages": 3}', b"null", b"[" * 5000, b'"x"'])
def test_a_body_that_is_no_request(http: httpx.Client, body: bytes) -> None:
    reply = http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400 and reply.json()["error"]["message"]


def test_lone_surrogates_are_refused(http: httpx.Client) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud800 x"}]}'
    reply = http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400


def test_routes_and_methods(http: httpx.Client) -> None:
    missing, wrong = http.post("/v1/nothing", json={}), http.get(CHAT)
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST" and wrong.json()["error"]["message"]
    assert http.get("/").status_code == 200 and "/v1" in http.get("/").text


def test_content_type(http: httpx.Client) -> None:
    assert http.post(CHAT, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    body = b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}'
    assert http.post(CHAT, content=body, headers={"content-type": "application/json; charset=utf-8"}).status_code == 200


def test_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="other", messages=HELLO)
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_context_exceeded_names_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="twin", prompt="x" * 600)
    assert caught.value.code == "context_length_exceeded"
    assert "600" in str(caught.value) or "601" in str(caught.value)
    assert str(CONTEXT) in str(caught.value)


def test_a_stream_that_cannot_start_is_refused_by_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="twin", prompt="x" * 600, stream=True)


def test_a_template_that_refuses(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="refuses"):
        client.chat.completions.create(model="twin", messages=[{"role": "user", "content": "refuse me"}])


def test_bad_requests_do_not_touch_good_ones(client: openai.OpenAI, url: str) -> None:
    asked = dict(model="twin", prompt="steady", max_tokens=60, seed=4)
    alone = client.completions.create(**asked).choices[0].text

    async def crowd() -> str:
        async with (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as many,
            httpx.AsyncClient(base_url=url) as raw,
        ):
            good = asyncio.create_task(many.completions.create(**asked))
            bad = [raw.post(path, json=body) for path, body, _ in REFUSED]
            replies = await asyncio.gather(*bad)
            assert {reply.status_code for reply in replies} == {400}
            return (await good).choices[0].text

    assert asyncio.run(crowd()) == alone


def test_keys_map_to_principals(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# keys\nsecret-a alice\n\nsecret-b bob\n")
    prompt = "a prompt of alice alone, long enough to fill pages of its own " * 2
    with serving(engine, ServerConfig(model_name="twin", api_keys=str(file))) as url:

        def cached(key: str) -> int:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
            usage = client.completions.create(model="twin", prompt=prompt, max_tokens=1).usage
            return usage.prompt_tokens_details.cached_tokens

        assert cached("secret-a") == 0 and cached("secret-a") > 0
        assert cached("secret-b") == 0, "another principal must not see that a prompt was asked before"
        with pytest.raises(openai.AuthenticationError):
            cached("secret-c")
        missing = httpx.get(f"{url}/v1/models")
        assert missing.status_code == 401 and missing.headers["www-authenticate"] == "Bearer"
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/health").status_code == 200


def test_size_limit(engine: Engine) -> None:
    with serving(engine, ServerConfig(max_request_bytes=1000)) as url:
        reply = httpx.post(f"{url}{CHAT}", json={"messages": [{"role": "user", "content": "x" * 2000}]})
        assert reply.status_code == 413 and "1,000" in reply.json()["error"]["message"]


def test_a_request_out_of_time_is_504(engine: Engine) -> None:
    """64 attempts take far longer than a millisecond on any machine."""
    with serving(engine, ServerConfig(model_name="twin", request_seconds=0.001)) as url:
        body = {"prompt": "slow", "max_tokens": 500, "ignore_eos": True, "n": 64}
        reply = httpx.post(f"{url}{TEXT}", json=body, timeout=30)
        assert reply.status_code == 504 and reply.json()["error"]["code"] == "time_limit"


def test_a_body_out_of_time_is_408(engine: Engine) -> None:
    with serving(engine, ServerConfig(model_name="twin", body_seconds=0.05)) as url:

        def slow_body() -> Iterator[bytes]:
            yield b"{"
            time.sleep(1)
            yield b"}"

        late = httpx.post(f"{url}{TEXT}", content=slow_body(), headers={"content-type": "application/json"})
        assert late.status_code == 408


def test_overload_is_429_with_retry_after(twin: Path) -> None:
    options = EngineOptions(threads=1, state_memory=8, queue=2, running=1)
    with Engine.load(twin, options) as small, serving(small, ServerConfig(model_name="twin")) as url:

        async def crowd() -> list[httpx.Response]:
            body = {"prompt": "crowd", "max_tokens": 100, "ignore_eos": True}
            async with httpx.AsyncClient(base_url=url, timeout=120) as many:
                return await asyncio.gather(*(many.post(TEXT, json=body) for _ in range(24)))

        replies = asyncio.run(crowd())
        refused = [reply for reply in replies if reply.status_code == 429]
        assert {reply.status_code for reply in replies} == {200, 429}
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        wait_until(lambda: small.stats()["pages_used"] == 0)


def test_a_model_without_tokenizer_serves_ids(tmp_path: Path) -> None:
    folder = write_twin(tmp_path / "bare", tokenizer=False)
    with Engine.load(folder, EngineOptions(threads=1, state_memory=8)) as bare, serving(bare) as url:
        body = {"prompt": [1, 2, 3], "max_tokens": 4, "return_token_ids": True, "logprobs": 1}
        choice = httpx.post(f"{url}{TEXT}", json=body).json()["choices"][0]
        assert len(choice["token_ids"]) == 4 and choice["text"] == ""
        assert choice["logprobs"]["tokens"] == [f"token_id:{id}" for id in choice["token_ids"]]
        for path, refused in [(TEXT, {"prompt": "x"}), (CHAT, {"messages": HELLO}), ("/tokenize", {"prompt": "x"})]:
            reply = httpx.post(f"{url}{path}", json=refused)
            assert reply.status_code == 400 and "no tokenizer" in reply.json()["error"]["message"]


def test_a_dead_engine_is_told(twin: Path) -> None:
    engine = Engine.load(twin, EngineOptions(threads=1, state_memory=8))
    with serving(engine, ServerConfig(model_name="twin")) as url:
        assert httpx.get(f"{url}/health").json() == {"status": "ok", "model": "twin"}
        engine.close()
        health = httpx.get(f"{url}/health")
        assert health.status_code == 503 and health.json()["error"]["code"] == "unhealthy"
        reply = httpx.post(f"{url}{TEXT}", json={"prompt": "x"})
        assert reply.status_code == 503 and reply.json()["error"]["code"] == "engine_stopped"


def test_what_ended_an_engine_is_for_the_log_alone(twin: Path, caplog: pytest.LogCaptureFixture) -> None:
    def lost(_: object) -> None:
        raise RuntimeError("arena at /srv/weights lost")

    engine = Engine.load(twin, EngineOptions(threads=1, state_memory=8))
    with serving(engine, ServerConfig(model_name="twin")) as url:
        engine._loop._executor.submit = lost  # type: ignore[assignment,method-assign]
        replies = [httpx.post(f"{url}{TEXT}", json={"prompt": "x"}) for _ in range(2)]
        replies.append(httpx.get(f"{url}/health"))
    engine.close()
    for reply in replies:
        assert reply.status_code == 503
        assert reply.json()["error"]["message"] == STOPPED and "lost" not in reply.text
    said = [record.getMessage() for record in caplog.records if "arena at /srv/weights lost" in record.getMessage()]
    assert len(said) == 3
