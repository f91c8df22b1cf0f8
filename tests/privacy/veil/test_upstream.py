"""What the proxy sends to a server and what it makes of the answers, broken ones too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")

from headrace.privacy.veil.errors import OtherKey
from headrace.privacy.veil.notice import KEY_HEADER
from headrace.privacy.veil.tokens import TokenMap
from headrace.privacy.veil.upstream import Arrival, Upstream
from headrace.spec.errors import EngineStopped, InvalidRequest, Overloaded
from headrace.spec.sampling import Sampling

KEY = "ab" * 16
TOKENS = TokenMap(np.array([3, 0, 4, 1, 2]))
END = {"choices": [{"finish_reason": "length"}]}
Ask = Callable[..., list[Arrival]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """What comes of a server that sends these events, or with another status one refusal; asked for `most` tokens."""
    opened: list[Upstream] = []

    def asked(
        *events: Any, most: int = 4, said: str | None = KEY, foreign: bool = False, status: int = 200, **body: Any
    ) -> list[Arrival]:
        begin = "data: " if status == 200 else ""
        text = "".join(f"{begin}{event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events)
        headers = {} if said is None else {KEY_HEADER: said}
        upstream = Upstream("http://veiled", TOKENS, KEY, foreign=foreign)
        opened.append(upstream)
        answer = httpx.MockTransport(lambda _: httpx.Response(status, text=text, headers=headers))
        upstream._client = httpx.AsyncClient(transport=answer)

        async def follow() -> list[Arrival]:
            return [arrival async for arrival in upstream.stream({"max_tokens": most} | body)]

        return upstream.run(follow()).result(30)

    yield asked
    for upstream in opened:
        upstream.close()


def event(*ids: int, **more: Any) -> dict[str, Any]:
    return {"choices": [{"token_ids": list(ids), **more}]}


def test_ids_come_back_as_they_were_meant(ask: Ask) -> None:
    arrivals = ask(event(0, 2), event(4), END, "[DONE]")
    assert [arrival.ids for arrival in arrivals] == [[3, 4], [2], []]


def test_an_answer_without_a_key_is_refused_by_name_unless_the_server_is_foreign(ask: Ask) -> None:
    with pytest.raises(OtherKey, match=r"An answer from http://veiled lacks x-headrace-veil.*--foreign"):
        ask(event(0), END, said=None)
    assert ask(event(0), END, said=None, foreign=True)[0].ids == [3]
    for foreign in (False, True):
        with pytest.raises(OtherKey, match="has the key another"):
            ask(event(0), END, said="another", foreign=foreign)
        with pytest.raises(Overloaded):
            ask(said=None, foreign=foreign, status=503)


def test_ids_outside_of_the_map_are_none() -> None:
    for wrong in (-1, 5):
        with pytest.raises(IndexError):
            TOKENS.plain([0, wrong])
        with pytest.raises(IndexError):
            TOKENS.veiled([wrong])


@pytest.mark.parametrize(
    "nonsense",
    [event(5), event(-1), event("a"), "{cut", '{"choices": 3}', event(1, logprobs={"tokens": []}),
     event(prompt_logprobs=[{"7": {}}])],
)  # fmt: skip
def test_an_answer_that_is_none_stops_with_a_sentence(ask: Ask, nonsense: Any) -> None:
    with pytest.raises(EngineStopped, match="check --url"):
        ask(nonsense, END, logprobs=1)


def test_an_error_on_the_way_keeps_its_text_back(ask: Ask) -> None:
    for error in ({"message": "id 4 is bad"}, "id 4 is bad"):
        with pytest.raises(EngineStopped, match="failed in the middle") as raised:
            ask(event(1), {"error": error})
        assert "id 4" not in str(raised.value)


@pytest.mark.parametrize(
    ("param", "named"), [("top_k", "`top_k`"), ("top_k[4]", "`top_k`"), ("id 4", "the request"), ([4], "the request")]
)
def test_of_a_refusal_a_field_is_named_at_most(ask: Ask, param: Any, named: str) -> None:
    with pytest.raises(InvalidRequest, match=f"refuses {named}") as raised:
        ask({"error": {"message": "id 4 is bad", "param": param}}, status=400, top_k=3)
    assert "4" not in str(raised.value).replace("(400)", "") and raised.value.field in ("top_k", None)


def test_a_refusal_by_name_stays_one(ask: Ask) -> None:
    named = {"token_logprobs": [-1.0], "top_logprobs": [{"weir": -1.0}]}
    with pytest.raises(InvalidRequest, match="without a tokenizer"):
        ask(event(1, logprobs=named), END, logprobs=1)


def test_an_answer_that_breaks_off_or_has_no_ids_is_no_answer(ask: Ask) -> None:
    with pytest.raises(EngineStopped, match="broke off"):
        ask(event(1), "[DONE]")
    with pytest.raises(EngineStopped, match="no token ids"):
        ask({"choices": [{"text": "weir"}]}, END)
    assert ask(END, most=0)[0].ids == []


def test_nothing_sent_keeps_the_order_of_the_plain_ids() -> None:
    upstream = Upstream("http://veiled", TOKENS, KEY)
    sampling = Sampling(logit_bias={2: 1.0, 3: 2.0, 4: 3.0})
    body = upstream.body("m", [2, 3], 4, sampling, [1, 2, 3], 7)
    upstream.close()
    assert body["prompt"] == [4, 0]
    assert body["stop_token_ids"] == [0, 3, 4]
    assert list(body["logit_bias"].items()) == [("0", 2.0), ("2", 3.0), ("4", 1.0)]


@pytest.mark.parametrize("card", ["a name", 3, None, {}])
def test_a_list_of_models_that_is_none_stops_with_a_sentence(card: Any) -> None:
    upstream = Upstream("http://veiled", TOKENS, KEY)
    answer = httpx.MockTransport(lambda _: httpx.Response(200, json={"data": [card]}))
    upstream._asking = httpx.AsyncClient(transport=answer)
    with pytest.raises(EngineStopped, match="check --url"):
        upstream.served()
    upstream.close()


def test_an_address_that_is_none_stops_with_a_sentence() -> None:
    upstream = Upstream("http://veiled:port", TOKENS, KEY)
    with pytest.raises(EngineStopped, match="check --url"):
        upstream.served()
    upstream.close()
