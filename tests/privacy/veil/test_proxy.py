"""The local proxy against a server that never has the key or a tokenizer: what clients see, and what it sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from privacy.veil.made import fixed_key

# isort: split
from headrace.engine.answer import Extension, Step
from headrace.engine.engine import Engine
from headrace.model.loading import load_model
from headrace.privacy.veil.client import PROFILE, Reading, VeiledEngine
from headrace.privacy.veil.errors import ArtefactError, KeyFileError, OtherKey, TokensSpent
from headrace.privacy.veil.export import export
from headrace.privacy.veil.keyfile import ClientKey, TokenBudget
from headrace.privacy.veil.notice import KEY_HEADER, PROFILE_HEADER, Notice
from headrace.privacy.veil.tokens import TokenMap
from headrace.spec.errors import EngineStopped, UnsupportedModel
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Stop
from server.twin import VOCAB, serving, write_twin

OPTIONS = EngineOptions(threads=1, state_memory=8, state_type="fp32")
MESSAGES: list[Any] = [{"role": "user", "content": "What is a weir?"}]


@dataclass
class Scene:
    """The plain model behind one server, the veiled one behind another, and the proxy before that."""

    source: Path
    key: ClientKey
    budget: TokenBudget
    veiled: Engine
    notice: Notice
    veiled_url: str
    proxy: VeiledEngine
    proxy_url: str
    plain_url: str
    seen: list[dict[str, Any]]

    def both(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same request to the proxy and to the plain server."""
        replies = [httpx.post(f"{url}{path}", json=body, timeout=60) for url in (self.proxy_url, self.plain_url)]
        assert all(reply.status_code == 200 for reply in replies), [reply.text for reply in replies]
        return replies[0].json(), replies[1].json()

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.proxy_url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    (folder / "plain").mkdir()
    source = write_twin(folder / "plain")
    key = replace(fixed_key(source), budget=1_000_000)
    export(source, key, folder / "veiled")
    budget = TokenBudget(folder / "key.spent", key)
    notice = Notice.of(folder / "veiled")
    assert notice is not None
    seen: list[dict[str, Any]] = []
    with (
        Engine.load(source, OPTIONS) as plain,
        Engine.load(folder / "veiled", OPTIONS) as veiled,
        serving(plain) as plain_url,
        serving(noting(veiled, seen), notice=notice) as veiled_url,
        VeiledEngine(load_model(source, Ledger()), key, budget, f"{veiled_url}/v1") as proxy,
        serving(proxy) as proxy_url,
    ):
        yield Scene(source, key, budget, veiled, notice, veiled_url, proxy, proxy_url, plain_url, seen)


def noting(engine: Engine, seen: list[dict[str, Any]]) -> Engine:
    """The engine, whose opened prompts and stop ids are noted: all that a server of token ids is told."""
    opened, extend = engine.open_now, engine._extend

    def open_now(prompt: Any, **how: Any) -> Any:
        seen.append({"prompt": prompt})
        return opened(prompt, **how)

    def extended(handle: Any, tokens: Any, stop: Any, sampling: Any, noise: Any, most: int) -> Any:
        seen.append({"stop": stop, "sampling": sampling})
        return extend(handle, tokens, stop, sampling, noise, most)

    engine.open_now, engine._extend = open_now, extended  # type: ignore[method-assign]
    return engine


def test_chat_answers_as_the_plain_model_does(scene: Scene) -> None:
    body = {"messages": MESSAGES, "max_tokens": 24, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    ours, theirs = scene.both("/v1/chat/completions", body)
    mine, wanted = ours["choices"][0], theirs["choices"][0]
    assert mine["message"] == wanted["message"] and mine["finish_reason"] == wanted["finish_reason"]
    assert ours["usage"]["prompt_tokens"] == theirs["usage"]["prompt_tokens"]
    assert ours["usage"]["completion_tokens"] == theirs["usage"]["completion_tokens"]
    for token, other in zip(mine["logprobs"]["content"], wanted["logprobs"]["content"], strict=True):
        assert (token["token"], token["bytes"]) == (other["token"], other["bytes"])
        assert token["logprob"] == pytest.approx(other["logprob"], abs=1e-3)
        assert len(token["top_logprobs"]) == 3
    assert ours["headrace"]["profile"] == PROFILE and "obfuscation" in PROFILE


def test_the_server_sees_veiled_ids_and_no_text(scene: Scene) -> None:
    scene.seen.clear()
    prompt = "mill race"
    scene.both("/v1/completions", {"prompt": prompt, "max_tokens": 4, "temperature": 0, "stop": ["zz"]})
    opened, extended = scene.seen
    plain = scene.proxy.encode(prompt)
    assert opened["prompt"] == TokenMap.of(scene.key).veiled(plain) != plain
    assert extended["stop"].text == () and extended["stop"].ignore_eos
    assert extended["stop"].token_ids == tuple(sorted(TokenMap.of(scene.key).veiled(list(scene.proxy._ends))))


def test_a_stream_is_the_whole_reply_in_parts(scene: Scene) -> None:
    client = scene.client()
    how: Any = {"model": "twin", "messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**how).choices[0]
    chunks = list(client.chat.completions.create(**how, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_stop_strings_and_stop_ids_end_the_text_here(scene: Scene) -> None:
    body: dict[str, Any] = {"prompt": "weir", "max_tokens": 32, "temperature": 0, "return_token_ids": True}
    whole, _ = scene.both("/v1/completions", body)
    text, ids = whole["choices"][0]["text"], whole["choices"][0]["token_ids"]
    for more in ({"stop": [text[5:8]]}, {"stop_token_ids": [ids[6]]}):
        ours, theirs = scene.both("/v1/completions", body | more)
        for name in ("text", "finish_reason", "stop_reason", "token_ids"):
            assert ours["choices"][0][name] == theirs["choices"][0][name], name
        assert ours["choices"][0]["finish_reason"] == "stop"
        assert len(ours["choices"][0]["token_ids"]) < len(ids)


def test_logit_bias_is_moved_with_its_ids(scene: Scene) -> None:
    body: dict[str, Any] = {"prompt": "weir", "max_tokens": 5, "temperature": 0, "return_token_ids": True}
    free, _ = scene.both("/v1/completions", body)
    wanted = next(id for id in range(90) if id not in free["choices"][0]["token_ids"])
    ours, theirs = scene.both("/v1/completions", body | {"logit_bias": {str(wanted): 100}})
    assert ours["choices"][0]["token_ids"] == theirs["choices"][0]["token_ids"] == [wanted] * 5


def test_prompt_logprobs_echo_and_penalties_agree(scene: Scene) -> None:
    body = {"prompt": "water wheel", "max_tokens": 12, "temperature": 0, "logprobs": 2, "echo": True}
    penalties = {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.4}
    for more in ({}, penalties, {"prompt_logprobs": 1}):
        ours, theirs = (reply["choices"][0] for reply in scene.both("/v1/completions", body | more))
        assert ours["text"] == theirs["text"]
        mine, wanted = (c["logprobs"]["token_logprobs"] for c in (ours, theirs))
        assert mine[0] is wanted[0] is None
        np.testing.assert_allclose(mine[1:], wanted[1:], atol=1e-3)
        if "prompt_logprobs" in more:
            assert [e and e["token_id"] for e in ours["prompt_logprobs"]] == [
                e and e["token_id"] for e in theirs["prompt_logprobs"]
            ]


def test_seeds_repeat_and_choices_differ(scene: Scene) -> None:
    body = {"prompt": "weir", "max_tokens": 16, "temperature": 1.0, "seed": 11, "n": 3, "return_token_ids": True}
    first, second = (
        [c["token_ids"] for c in httpx.post(f"{scene.proxy_url}/v1/completions", json=body).json()["choices"]]
        for _ in range(2)
    )
    assert first == second
    assert len({tuple(ids) for ids in first}) == 3


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/completions", {"prompt": "a", "adapter": "tuned"}, "adapter"),
        ("/v1/chat/completions", {"messages": MESSAGES, "response_format": {"type": "json_object"}}, "response_format"),
        ("/v1/chat/completions", {"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools"),
        ("/v1/embeddings", {"input": "a"}, "embeddings"),
        ("/v1/completions", {"prompt": [VOCAB + 1]}, "prompt"),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_name(scene: Scene, path: str, body: dict[str, Any], named: str) -> None:
    reply = httpx.post(f"{scene.proxy_url}{path}", json=body, timeout=60)
    assert reply.status_code == 400
    assert named in reply.json()["error"]["message"]


def test_verbs_that_cannot_be_mapped_are_refused_by_name(scene: Scene) -> None:
    handle = scene.proxy.open_now("weir")
    with pytest.raises(UnsupportedModel, match="Scores"):
        handle.score(["a"])
    with pytest.raises(UnsupportedModel, match="Hidden states"):
        handle.read()
    with pytest.raises(UnsupportedModel, match="adapters"):
        scene.proxy.add_adapter("x", scene.source)


def test_a_dropped_request_ends_upstream(scene: Scene) -> None:
    from server.twin import wait_until

    handle = scene.proxy.open_now("weir")
    extension = handle.extend()
    next(iter(extension))
    handle.drop()
    assert extension.result(30).finish_reason in ("cancelled", "stop", "length")
    wait_until(lambda: httpx.get(f"{scene.veiled_url}/metrics").text.count("headrace_running 0.0") == 1)
    assert scene.proxy.stats()["running"] == 0


def test_an_answer_that_ends_leaves_the_next_one_of_its_sequence_alone(scene: Scene) -> None:
    """Between an answer's end and its clearing away, the sequence may be extended again."""

    class Ending(Reading):
        async def run(self, arrivals: Any) -> None:
            scene.proxy._readings[-1] = follower
            await arrivals.aclose()

    parts: Any = (Extension(lambda: None), None, frozenset(), False, scene.budget, Step())
    first, follower = Ending(*parts), Reading(*parts)
    scene.proxy._upstream.run(scene.proxy._read_back(-1, first, {})).result(30)
    assert scene.proxy._readings.pop(-1, None) is follower


def test_the_budget_ends_an_answer_and_refuses_the_next(scene: Scene, tmp_path: Path) -> None:
    key = replace(scene.key, budget=20)
    budget = TokenBudget(tmp_path / "key.spent", key)
    scene.seen.clear()
    with VeiledEngine(load_model(scene.source, Ledger()), key, budget, f"{scene.veiled_url}/v1") as engine:
        step = engine.open_now("weir").extend(Stop(ignore_eos=True)).result(30)
        assert len(step.token_ids) == 16 and step.finish_reason == "length"
        assert scene.seen[-1]["stop"].tokens == 16, "the server is asked for no more than may pass"
        with pytest.raises(TokensSpent, match="rotate"):
            engine.open_now("weir").extend()
    assert json.loads((tmp_path / "key.spent").read_text("utf-8"))["tokens"] == 20


def proxy_of(scene: Scene, key: ClientKey, folder: Path, url: str, foreign: bool = False) -> VeiledEngine:
    budget = TokenBudget(folder / "key.spent", key)
    return VeiledEngine(load_model(scene.source, Ledger()), key, budget, f"{url}/v1", foreign=foreign)


def test_a_wrong_key_gives_other_text_and_no_crash(scene: Scene, tmp_path: Path) -> None:
    """At a server that does not say its key: it is refused, or said to be unchecked where it is a foreign one."""
    wrong, few = replace(fixed_key(scene.source, secret=9), budget=10_000), Stop(tokens=12, ignore_eos=True)
    with serving(scene.veiled) as silent:
        with pytest.raises(OtherKey, match=r"lacks x-headrace-veil.*--foreign"):
            proxy_of(scene, wrong, tmp_path, silent)
        engine = proxy_of(scene, wrong, tmp_path, silent, foreign=True)
        assert engine.unchecked is not None and "not checked" in engine.unchecked
        with engine:
            step = engine.open_now("weir").extend(few).result(60)
    right = scene.proxy.open_now("weir").extend(few).result(60)
    assert step.token_ids != right.token_ids


def test_every_response_of_a_veiled_server_says_its_key_and_profile(scene: Scene) -> None:
    assert scene.notice.key_id == scene.key.master.key_id() and "obfuscation" in scene.notice.profile
    for path in ("/v1/models", "/health", "/v1/models/none", "/nowhere"):
        headers = httpx.get(f"{scene.veiled_url}{path}").headers
        assert (headers[KEY_HEADER], headers[PROFILE_HEADER]) == (scene.notice.key_id, scene.notice.profile)
        assert KEY_HEADER not in httpx.get(f"{scene.plain_url}{path}").headers
    body = {"prompt": [1, 2], "max_tokens": 1, "stream": True}
    with httpx.stream("POST", f"{scene.veiled_url}/v1/completions", json=body, timeout=60) as reply:
        assert reply.headers[PROFILE_HEADER] == scene.notice.profile
    card = httpx.get(f"{scene.veiled_url}/v1/models").json()["data"][0]
    assert Notice(**card["veil"]) == scene.notice
    assert "veil" not in httpx.get(f"{scene.plain_url}/v1/models").json()["data"][0]


def test_a_server_of_another_key_or_epoch_is_refused_by_name(scene: Scene, tmp_path: Path) -> None:
    assert scene.proxy.unchecked is None
    rotated, another = scene.key.rotated(), fixed_key(scene.source, secret=9)
    with pytest.raises(OtherKey, match="epoch 0 of this key, which is in epoch 1; export"):
        proxy_of(scene, rotated, tmp_path, scene.veiled_url)
    with pytest.raises(OtherKey, match=f"{scene.notice.key_id[:16]}, not with {another.master.key_id()[:16]}"):
        proxy_of(scene, another, tmp_path, scene.veiled_url, foreign=True)


@pytest.mark.parametrize("next_one", ["epoch", "plain"])
def test_a_restart_with_another_model_is_noticed_before_anything_is_sent(
    scene: Scene, tmp_path: Path, next_one: str
) -> None:
    few, other = Stop(tokens=2), replace(scene.notice, key_id=scene.key.rotated().master.key_id(), epoch=1)
    with serving(scene.veiled, notice=scene.notice) as url:
        engine = proxy_of(scene, scene.key, tmp_path, url)
        engine.open_now("weir").extend(few).result(60)
    with engine, serving(scene.veiled, notice=other if next_one == "epoch" else None, port=int(url.split(":")[2])):
        scene.seen.clear()
        for _ in range(2):
            with pytest.raises(OtherKey, match="epoch 1 of this key" if next_one == "epoch" else "lacks x-headrace"):
                engine.open_now("weir").extend(few).result(60)
        assert scene.seen == []


def test_one_of_several_servers_that_has_another_key_is_told_by_its_response(scene: Scene, tmp_path: Path) -> None:
    with proxy_of(scene, scene.key, tmp_path, scene.veiled_url) as engine:
        engine._upstream._key_id = "another"
        with pytest.raises(OtherKey, match="One of the servers"):
            engine._upstream._same_key(httpx.get(f"{scene.veiled_url}/health"))


@pytest.mark.parametrize(
    "found",
    [{}, {"key_id": "ab", "epoch": "1", "profile": "veil"}, [], {"key_id": "ab", "epoch": 1, "profile": "a\r\nb"}],
)
def test_a_notice_that_could_not_stand_in_a_header_is_refused(found: Any) -> None:
    with pytest.raises(ArtefactError, match="does not name"):
        Notice.read(found, "veil.json")


def test_a_server_that_is_not_there_or_another_model_is_refused(scene: Scene, tmp_path: Path) -> None:
    plain = load_model(scene.source, Ledger())
    with pytest.raises(EngineStopped, match="headrace serve"):
        VeiledEngine(plain, scene.key, scene.budget, "http://127.0.0.1:9/v1")
    with pytest.raises(KeyFileError, match="made for"):
        VeiledEngine(plain, replace(scene.key, vocab=5), scene.budget, f"{scene.veiled_url}/v1")
