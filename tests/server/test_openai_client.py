"""The official client drives every route; a stream folds to the whole reply."""

from __future__ import annotations

import math

import openai
import pytest

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}]


def test_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="twin", messages=MESSAGES, max_tokens=12, temperature=0, seed=3)
    assert reply.object == "chat.completion" and reply.id.startswith("chatcmpl-")
    assert reply.choices[0].message.role == "assistant"
    assert reply.usage is not None and reply.usage.total_tokens == reply.usage.prompt_tokens + 12
    assert reply.choices[0].finish_reason == "length"
    assert reply.system_fingerprint
    extras = reply.model_extra["headrace"]
    assert extras["seed"] == 3 and extras["sampling"]["temperature"] == 0
    assert extras["profile"] == reply.system_fingerprint and extras["bit_exact"] is True


def test_chat_stream_folds_to_the_whole_reply(client: openai.OpenAI) -> None:
    asked = dict(
        model="twin", messages=MESSAGES, max_tokens=40, temperature=1.5, seed=11, n=3, logprobs=True, top_logprobs=2
    )
    whole = client.chat.completions.create(**asked)
    texts, entries, reasons, usage, indices = {}, {}, {}, None, []
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            indices.append(choice.index)
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            entries.setdefault(choice.index, []).extend(choice.logprobs.content if choice.logprobs else [])
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    for choice in whole.choices:
        assert texts[choice.index] == choice.message.content
        assert entries[choice.index] == choice.logprobs.content
        assert reasons[choice.index] == choice.finish_reason
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert len({texts[i] for i in range(3)}) == 3, "forks must draw differently"
    assert indices != sorted(indices), "choices of one request must be interleaved"


def test_stream_carries_the_seed_and_usage_only_when_asked(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="twin", messages=MESSAGES, max_tokens=3, stream=True))
    seed = chunks[0].model_extra["headrace"]["seed"]
    assert isinstance(seed, int) and all(chunk.usage is None and chunk.choices for chunk in chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    again = client.chat.completions.create(model="twin", messages=MESSAGES, max_tokens=3, seed=seed)
    assert again.choices[0].message.content == text


def test_completion_with_text_and_ids_is_the_same(client: openai.OpenAI, http) -> None:
    ids = http.post("/tokenize", json={"prompt": "Hello"}).json()["tokens"]
    asked = dict(model="twin", max_tokens=8, temperature=0, extra_body={"return_token_ids": True})
    by_text = client.completions.create(prompt="Hello", **asked).choices[0]
    by_ids = client.completions.create(prompt=ids, **asked).choices[0]
    assert by_text.model_extra["token_ids"] == by_ids.model_extra["token_ids"]
    assert by_ids.model_extra["prompt_token_ids"] == ids and len(by_ids.model_extra["token_ids"]) == 8


def test_completion_with_several_prompts(client: openai.OpenAI) -> None:
    asked = dict(model="twin", max_tokens=6, seed=5)
    both = client.completions.create(prompt=["one", "two"], n=2, **asked)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    second = client.completions.create(prompt=["two"], n=2, **asked)
    assert [choice.text for choice in both.choices[2:]] == [choice.text for choice in second.choices]


def test_completion_stream_folds_to_the_whole_reply(client: openai.OpenAI) -> None:
    asked = dict(model="twin", prompt="héllo", echo=True, logprobs=3, max_tokens=20, seed=2)
    whole = client.completions.create(**asked).choices[0]
    text, tokens, offsets, values = "", [], [], []
    for chunk in client.completions.create(**asked, stream=True):
        choice = chunk.choices[0]
        text += choice.text
        if choice.logprobs:
            tokens += choice.logprobs.tokens
            offsets += choice.logprobs.text_offset
            values += choice.logprobs.token_logprobs
    assert text == whole.text and text.startswith("héllo")
    assert tokens == whole.logprobs.tokens and offsets == whole.logprobs.text_offset
    assert values == whole.logprobs.token_logprobs


def test_completion_logprobs(client: openai.OpenAI) -> None:
    asked = dict(model="twin", prompt="abc", echo=True, logprobs=4, temperature=0)
    logprobs = client.completions.create(max_tokens=5, **asked).choices[0].logprobs
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert all(value <= 0 and math.isfinite(value) for value in logprobs.token_logprobs[1:])
    assert all(len(top) <= 4 for top in logprobs.top_logprobs[1:])
    offset = {token: at for token, at in zip(logprobs.tokens[-8:], logprobs.text_offset[-8:], strict=True)}
    assert offset["a"] == 0 or logprobs.text_offset[logprobs.tokens.index("a")] == 0
    scored = client.completions.create(max_tokens=0, **asked).choices[0]
    assert (
        scored.text == "abc"
        and scored.logprobs.token_logprobs == logprobs.token_logprobs[: len(scored.logprobs.tokens)]
    )


def test_chat_logprobs_have_bytes(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="twin", messages=MESSAGES, max_tokens=9, logprobs=True, top_logprobs=20, temperature=0
    )
    content = reply.choices[0].logprobs.content
    assert len(content) == 9 and all(len(entry.top_logprobs) == 20 for entry in content)
    for entry in content:
        best = max(entry.top_logprobs, key=lambda top: top.logprob)
        assert entry.logprob == best.logprob and isinstance(entry.bytes, list)


def test_prompt_logprobs(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model="twin", prompt=[65, 66, 67], max_tokens=1, extra_body={"prompt_logprobs": 2}
    )
    entries = reply.choices[0].model_extra["prompt_logprobs"]
    assert entries[0] is None and [entry["token_id"] for entry in entries[1:]] == [66, 67]
    assert all(len(entry["top"]) == 2 for entry in entries[1:])


def test_stop_strings_and_ids(client: openai.OpenAI) -> None:
    asked = dict(model="twin", prompt="stop here", temperature=0, max_tokens=40)
    free = client.completions.create(**asked, extra_body={"return_token_ids": True}).choices[0]
    needle = next(c for c in free.text if c.isascii() and c.isprintable())
    cut = client.completions.create(**asked, stop=needle).choices[0]
    assert cut.text == free.text[: free.text.index(needle)]
    assert cut.finish_reason == "stop" and cut.model_extra["stop_reason"] == needle
    id = free.model_extra["token_ids"][3]
    by_id = client.completions.create(**asked, extra_body={"stop_token_ids": [id]}).choices[0]
    assert by_id.finish_reason == "stop" and by_id.model_extra["stop_reason"] == id


def test_logit_bias_and_penalties_count(client: openai.OpenAI) -> None:
    biased = client.completions.create(model="twin", prompt="x", max_tokens=5, temperature=0, logit_bias={"65": 100})
    assert biased.choices[0].text == biased.choices[0].text[0] * 5
    asked = dict(model="twin", prompt="x", max_tokens=60, seed=1, logit_bias={str(id): 50 for id in range(65, 75)})
    plain = client.completions.create(**asked).choices[0].text
    for penalty in ({"presence_penalty": 2}, {"frequency_penalty": 2}, {"extra_body": {"repetition_penalty": 2.0}}):
        assert client.completions.create(**asked, **penalty).choices[0].text != plain, penalty


def test_embeddings(client: openai.OpenAI, http) -> None:
    floats = client.embeddings.create(model="twin", input=["hello", "world", "hello"], encoding_format="float")
    packed = client.embeddings.create(model="twin", input=["hello", "world", "hello"])  # the client asks for base64
    for one, other in zip(floats.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert math.fsum(x * x for x in one.embedding) == pytest.approx(1, abs=1e-5)
    assert floats.data[0].embedding == floats.data[2].embedding != floats.data[1].embedding
    assert "mean" in floats.model_extra["headrace"]["pooling"]
    ids = http.post("/tokenize", json={"prompt": "hello"}).json()["tokens"]
    assert (
        client.embeddings.create(model="twin", input=ids, encoding_format="float").data[0].embedding
        == floats.data[0].embedding
    )


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["twin"]
    assert client.models.retrieve("twin").id == "twin"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_cached_tokens_are_counted(client: openai.OpenAI) -> None:
    asked = dict(model="twin", prompt="a prompt that is a few pages long, " * 4, max_tokens=2, temperature=0)
    first = client.completions.create(**asked)
    second = client.completions.create(**asked)
    assert second.usage.prompt_tokens_details.cached_tokens >= 64
    assert second.model_extra["headrace"]["cached_tokens"] == second.usage.prompt_tokens_details.cached_tokens
    assert first.choices[0].text == second.choices[0].text


def test_fields_without_effect_are_echoed(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="twin", messages=MESSAGES, max_tokens=1, store=False, metadata={"a": "b"}, user="someone"
    )
    assert reply.model_extra["headrace"]["ignored"] == ["store", "metadata", "user"]
