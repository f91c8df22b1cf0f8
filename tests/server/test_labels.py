"""Labels over HTTP: a key runs at its principal's clearance, and what others do at other labels changes no byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.engine.engine import Engine
from headrace.server.app import create_app
from headrace.server.config import ServerConfig
from headrace.server.keys import KeyRing
from headrace.server.labels import Labels
from headrace.spec.errors import HeadraceError
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions
from server.twin import serving, write_adapter_of

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
POLICY = """
[confidentiality]
categories = ["hr", "law"]
[clearances]
ann = {confidentiality = ["hr"]}
ada = {confidentiality = ["hr"]}
eve = {confidentiality = []}
root = {confidentiality = ["hr", "law"]}
[adapters]
house = {confidentiality = ["hr"]}
"""
KEYS = "".join(f"key-{who} {who}\n" for who in ("ann", "ada", "eve", "root"))
PROMPT = "The code of the amber vault is known to those who may know it, and to nobody else at all. "
ASKED = {"prompt": PROMPT, "max_tokens": 6, "seed": 3, "ignore_eos": True, "logprobs": 2}
SEARCH = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8}
SEARCH |= {"compute": {"strategy": "self_consistency(n=2)", "seed": 5, "return": ["tree"], "stream_events": True}}
Ask = Callable[..., httpx.Response]


def config(folder: Path, policy: str = POLICY, keys: str = KEYS) -> ServerConfig:
    (folder / "keys").write_text(keys)
    (folder / "policy.toml").write_text(policy)
    return ServerConfig(model_name="twin", api_keys=str(folder / "keys"), labels=str(folder / "policy.toml"))


@pytest.fixture(scope="module")
def engine(twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """With so few pages that two labels' requests evict each other's."""
    adapter = write_adapter_of(twin, tmp_path_factory.mktemp("house"))
    with Engine.load(twin, EngineOptions(threads=1, state_memory=1, adapter=(f"house={adapter}",))) as engine:
        yield engine


@pytest.fixture(scope="module")
def ask(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    with serving(engine, config(tmp_path_factory.mktemp("labels"))) as url, httpx.Client(timeout=60) as http:

        def ask(who: str, path: str = TEXT, body: dict[str, Any] | None = None) -> httpx.Response:
            headers = {"Authorization": f"Bearer key-{who}"}
            if body is None:
                return http.get(url + path, headers=headers)
            return http.post(url + path, headers=headers, json=body)

        yield ask


def hits(engine: Engine, action: Callable[[], object]) -> int:
    """Prompt tokens that an action found in the cache, by the engine's own count."""
    found: list[int] = []
    stop = engine.events.listen(lambda event: found.append(event.cached_tokens))
    action()
    engine.check()  # behind the last step's event
    stop()
    return sum(found)


def told(reply: httpx.Response) -> dict[str, Any]:
    """All that a client is told, but the reply's own number and time, and the seconds that a search took."""
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    body.get("compute", {}).get("usage", {}).pop("seconds", None)
    return {name: value for name, value in body.items() if name not in ("id", "created")}


def test_pages_are_shared_within_a_label_and_usage_does_not_tell(ask: Ask, engine: Engine) -> None:
    engine.clear_cache()
    replies: list[dict[str, Any]] = []
    found = [hits(engine, lambda who=who: replies.append(told(ask(who, body=ASKED)))) for who in ("ann", "eve", "ada")]
    assert found[:2] == [0, 0] and found[2] >= 64
    labels = [reply["headrace"].pop("label") for reply in replies]
    assert labels == ["{hr}|any", "{}|any", "{hr}|any"]
    assert replies[0] == replies[1] == replies[2] and replies[0]["usage"]["completion_tokens"] == 6


def test_a_page_shared_across_labels_would_be_seen(ask: Ask, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Labels, "sharing", lambda self, principal: "everyone")
    engine.clear_cache()
    assert hits(engine, lambda: ask("ann", body=ASKED)) == 0
    assert hits(engine, lambda: ask("eve", body=ASKED)) >= 64


@pytest.mark.parametrize("path", ["text", "stream", "search", "embedding"])
def test_every_route_runs_at_its_label_and_tells_no_hits(path: str, ask: Ask, engine: Engine) -> None:
    bodies = {
        "text": (TEXT, ASKED), "stream": (TEXT, ASKED | {"stream": True, "stream_options": {"include_usage": True}}),
        "search": (CHAT, SEARCH | {"stream": True, "stream_options": {"include_usage": True}}),
        "embedding": ("/v1/embeddings", {"input": PROMPT}),
    }  # fmt: skip
    engine.clear_cache()
    assert hits(engine, lambda: ask("ann", *bodies[path])) == 0 or path == "search"
    assert hits(engine, lambda: ask("ada", *bodies[path])) >= 64 or path == "embedding"
    reply = ask("ada", *bodies[path])
    assert reply.status_code == 200 and '"label":"{hr}|any"' in reply.text and "cached" not in reply.text
    assert '"usage":{"prompt_tokens"' in reply.text


def test_what_others_ask_at_hidden_labels_changes_nothing(ask: Ask, engine: Engine) -> None:
    mine = [ASKED, ASKED | {"prompt": PROMPT * 2}, ASKED, SEARCH | {"compute": {"strategy": "single", "seed": 5}}]

    def history(*others: str) -> tuple[list[dict[str, Any]], int]:
        """What eve is told, and the cached tokens behind it."""
        engine.clear_cache()
        seen, found = [], 0
        for body in mine:
            for number, who in zip(range(crowd), cycle(others), strict=False):
                theirs = {"prompt": PROMPT if number == 1 else f"{who}, {len(seen)}, {number}: {PROMPT * 5}"}
                assert ask(who, body=theirs | {"max_tokens": 1, "adapter": "house"}).status_code == 200
            path = CHAT if "messages" in body else TEXT
            found += hits(engine, lambda path=path, body=body: seen.append(told(ask("eve", path, body))))
        return [*seen, told(ask("eve", "/v1/models"))], found

    crowd = int(engine.stats()["pages_total"]) * PAGE_TOKENS // len(PROMPT * 5) + 2
    (alone, kept), (crowded, evicted) = history(), history("root", "ada", "ann")
    assert alone == crowded
    assert evicted < kept, "the counters that are not told do differ"


def test_a_hidden_adapter_is_not_there(ask: Ask) -> None:
    names = {who: [card["id"] for card in ask(who, "/v1/models").json()["data"]] for who in ("ann", "eve")}
    assert names == {"ann": ["twin", "house"], "eve": ["twin"]}
    adapted = told(ask("ann", body=ASKED | {"adapter": "house"}))
    assert adapted["headrace"]["adapter"] == "house" and adapted["headrace"]["label"] == "{hr}|any"
    for field in ("adapter", "model"):
        said = [ask("eve", body=ASKED | {field: name}) for name in ("house", "horse")]
        assert said[0].status_code == said[1].status_code >= 400
        assert said[0].text.replace("house", "NAME") == said[1].text.replace("horse", "NAME")
    gone = [ask("eve", f"/v1/models/{name}") for name in ("house", "horse")]
    assert {reply.status_code for reply in gone} == {404}
    assert gone[0].text.replace("house", "NAME") == gone[1].text.replace("horse", "NAME")


def test_an_adapter_that_got_no_label_is_nobodys(tmp_path: Path) -> None:
    """One that is loaded while the server runs is in no policy that was read when it started."""
    labels = Labels.read(settings := config(tmp_path), KeyRing.read(settings.api_keys))
    assert labels.adapters("root", ("house", "new")) == ("house",) and labels.adapters("eve", ("new",)) == ()


def test_probes_have_no_label_and_are_refused(ask: Ask) -> None:
    search = SEARCH["compute"] | {"scorer": "probe(kept)", "stream_events": False}
    said = ask("root", CHAT, SEARCH | {"compute": search})
    assert said.status_code == 400 and "No label says" in said.text and "compute.scorer" in said.text


def test_metrics_are_for_those_who_are_cleared_for_all(ask: Ask) -> None:
    assert ask("root", "/metrics").status_code == 200
    refusal = ask("ann", "/metrics")
    assert refusal.status_code == 403 and refusal.json()["error"]["type"] == "permission_error"


def test_without_a_policy_counters_are_told_and_nothing_has_a_label(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEYS)
    with serving(engine, ServerConfig(model_name="twin", api_keys=str(tmp_path / "keys"))) as url:
        reply = httpx.post(url + TEXT, headers={"Authorization": "Bearer key-eve"}, json=ASKED, timeout=60).json()
    assert "label" not in reply["headrace"] and "cached_tokens" in reply["usage"]["prompt_tokens_details"]


@pytest.mark.parametrize(
    ("policy", "keys", "said"),
    [
        (POLICY.replace("eve = {confidentiality = []}\n", ""), KEYS, "eve has a key but no clearance"),
        (POLICY.partition("[adapters]")[0], KEYS, "The adapter house has no label"),
        (POLICY.replace("categories", "kinds"), KEYS, "is no lattice"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(
    engine: Engine, tmp_path: Path, policy: str, keys: str, said: str
) -> None:
    with pytest.raises(HeadraceError, match=said):
        create_app(engine, config(tmp_path, policy, keys))


def test_labels_need_keys(engine: Engine, tmp_path: Path) -> None:
    labels = config(tmp_path).labels
    with pytest.raises(HeadraceError, match="add --api-keys"):
        create_app(engine, ServerConfig(labels=labels))
