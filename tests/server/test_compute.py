"""The compute field: the same tree as in process, refusals by name, events that a plain client passes over."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import httpx
import openai
import pytest

from headrace.engine.engine import Engine
from headrace.model.catalogue import cache_folder
from headrace.reason.answers import answer_space
from headrace.reason.scorers import scorer_named
from headrace.reason.solve import Order, solve
from headrace.reason.task import Task
from headrace.spec.budget import Budget
from headrace.spec.sampling import Sampling, Stop

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a number."}]
COMPUTE = {"strategy": "step_beam(width=4, expand=2)", "scorer": "judge", "budget": "90 tok", "seed": 5}


def asked(client: openai.OpenAI, compute: dict, **how):
    how = {"max_tokens": 24, "temperature": 1.3} | how
    return client.chat.completions.create(model="twin", messages=MESSAGES, extra_body={"compute": compute}, **how)


def test_the_field_gives_the_tree_that_a_call_in_process_gives(client: openai.OpenAI, engine: Engine) -> None:
    reply = asked(client, COMPUTE | {"return": ["candidates", "tree"]})
    told = reply.model_extra["compute"]
    task = Task("Name a number.", answer_space("text"), ending=Stop(tokens=24), before=(MESSAGES[0],))
    order = Order(COMPUTE["strategy"], Budget(tokens=90), scorer_named("judge"), 5, Sampling(temperature=1.3))
    here = asyncio.run(solve(engine, task, order))
    assert told["trace_id"] == here.trace_id and told["answer"] == here.answer
    assert reply.choices[0].message.content == here.text
    assert [c["text"] for c in told["candidates"]] == [c.text for c in here.candidates]
    assert told["usage"]["completion"] == reply.usage.completion_tokens == here.usage["completion"] <= 90
    assert told["tree"][0]["kids"] and reply.model_extra["headrace"]["seed"] == 5


def test_a_plain_client_reads_a_stream_with_events(client: openai.OpenAI) -> None:
    whole = asked(client, COMPUTE)
    kinds, text, final = [], "", None
    for chunk in asked(client, COMPUTE | {"stream_events": True}, stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        elif "compute" in chunk.model_extra:
            kinds.append(chunk.model_extra["compute"]["kind"])
        final = chunk.usage or final
    assert text == whole.choices[0].message.content
    assert {"open", "fork", "extend", "scores", "candidate", "best", "result"} <= set(kinds)
    assert final.completion_tokens == whole.usage.completion_tokens
    silent = list(asked(client, COMPUTE, stream=True))
    assert all(chunk.choices for chunk in silent)


@pytest.mark.parametrize("asks", [{"scorer": "probe(none)"}, {"strategy": "auto(table='none')", "scorer": None}])
def test_a_refusal_names_no_folder_of_the_server(client: openai.OpenAI, asks: dict) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        asked(client, COMPUTE | asks)
    said = str(refusal.value)
    assert "There is no" in said and "none" in said and str(cache_folder()) not in said


def test_an_attempt_that_was_cut_off_is_said_to_be(client: openai.OpenAI) -> None:
    assert asked(client, {"strategy": "single", "seed": 5}, max_tokens=2).choices[0].finish_reason == "length"


def test_events_have_names(http: httpx.Client) -> None:
    body = {"messages": MESSAGES, "max_tokens": 8, "stream": True, "compute": COMPUTE | {"stream_events": True}}
    lines = http.post("/v1/chat/completions", json=body).text.splitlines()
    names = {line.removeprefix("event: ") for line in lines if line.startswith("event: ")}
    assert names == {"compute.step", "compute.candidate", "compute.best", "compute.final"}
    assert lines[-2] == "data: [DONE]"


@pytest.mark.parametrize(
    ("compute", "param", "words"),
    [
        ({"strategy": "slef_consistency"}, "compute.strategy", "did you mean self_consistency"),
        ({"strategy": "self_consistency(m=3)"}, "compute.strategy", "has no parameter 'm'"),
        ({"strategy": "self_consistency(n='3')"}, "compute.strategy", "whole number"),
        ({"strategy": "self_consistency; import os"}, "compute.strategy", "cannot be read"),
        ({"strategy": "best_of_n"}, "compute.scorer", "needs a scorer"),
        ({"strategy": "best_of_n", "scorer": "gold"}, "compute.scorer", "no scorer 'gold'"),
        ({"strategy": "single", "budget": "4 apples"}, "compute.budget", "cannot be read"),
        ({"strategy": "single", "budget": {"tokens": -1}}, "compute.budget", "compute.budget"),
        ({"strategy": "single", "answer": "poem"}, "compute.answer", "no answers of kind"),
        ({"strategy": "single", "effort": 3}, "compute.effort", "not a field"),
    ],
)
def test_a_wrong_part_is_refused_by_name(http: httpx.Client, compute: dict, param: str, words: str) -> None:
    reply = http.post("/v1/chat/completions", json={"messages": MESSAGES, "compute": compute})
    error = reply.json()["error"]
    assert reply.status_code == 400 and words in error["message"], error
    assert error["param"].startswith(param.rsplit(".", 1)[0])


@pytest.mark.parametrize("field", [{"n": 2}, {"logprobs": True}, {"ignore_eos": True}, {"return_token_ids": True}])
def test_fields_that_say_nothing_about_a_search_are_refused(http: httpx.Client, field: dict) -> None:
    reply = http.post("/v1/chat/completions", json={"messages": MESSAGES, "compute": COMPUTE} | field)
    assert reply.status_code == 400 and reply.json()["error"]["param"] == next(iter(field))


def test_a_budget_that_does_not_even_pay_for_the_question_says_so(http: httpx.Client) -> None:
    compute = {"strategy": "single", "budget": {"prefill": 2}}
    told = http.post("/v1/chat/completions", json={"messages": MESSAGES, "compute": compute}).json()
    assert told["compute"]["answer"] is None and told["compute"]["stopped_by"] == "budget:prefill"
    assert told["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0} | {
        "prompt_tokens_details": {"cached_tokens": 0}
    }


def test_a_client_that_goes_away_frees_the_whole_tree(url: str, engine: Engine) -> None:
    body = {
        "messages": MESSAGES,
        "max_tokens": 400,
        "stream": True,
        "compute": {"strategy": "self_consistency(n=12)", "stream_events": True},
    }
    before = engine.stats()["open_sequences"]
    with (
        httpx.Client(base_url=url, timeout=60) as http,
        http.stream("POST", "/v1/chat/completions", json=body) as reply,
    ):
        lines = (line for line in reply.iter_lines() if line.startswith("data: "))
        assert json.loads(next(lines).removeprefix("data: "))["compute"]["kind"] == "open"
        forked = next(line for line in lines if '"kind":"fork"' in line)
        assert forked
    gone = threading.Event()
    for _ in range(400):
        if engine.stats()["open_sequences"] == before and engine.stats()["running"] == 0:
            gone.set()
            break
        time.sleep(0.05)
    assert gone.is_set(), engine.stats()
    engine.check()
