"""`headrace bench`: throughput of the engine alone, or a load on any OpenAI-compatible server."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.show import note, print_json, print_table
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions

Concurrency = Annotated[str, typer.Option(help="Requests at the same time; several values: 1,8,32.")]
PromptTokens = Annotated[str, typer.Option(help="Prompt length; with --url also uniform:LOW:HIGH or normal:MEAN:SD.")]
NewTokens = Annotated[str, typer.Option(help="Tokens to generate; with --url also uniform:LOW:HIGH or normal:MEAN:SD.")]
Repeats = Annotated[int, typer.Option(min=1, help="Rounds at each concurrency; the median is reported.")]
Url = Annotated[str | None, typer.Option(help="Load this server instead, for example http://127.0.0.1:8000/v1.")]
Rate = Annotated[float, typer.Option(min=0, help="With --url: mean arrivals a second (Poisson); 0: no pause.")]
Requests = Annotated[int, typer.Option(min=1, help="With --url: how many requests to send.")]
Endpoint = Annotated[Literal["chat", "completions"], typer.Option(help="With --url: which endpoint to load.")]
ServedModel = Annotated[str | None, typer.Option(help="With --url: the model's name (default: the first served).")]
ApiKey = Annotated[str | None, typer.Option(help="With --url: the API key.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="With --url: ask for exactly the length wanted.")]
Profile = Annotated[bool, typer.Option("--profile", help="Show where the time of one request goes instead.")]
Seed = Annotated[int, typer.Option(callback=g.seed_in_range, help="Seed of prompts, lengths and arrivals.")]
Output = Annotated[Path | None, typer.Option(help="Write the result to this JSON file as well.")]


@with_flags(options=EngineOptions)
def bench(
    model: g.ModelName = g.DEFAULT_MODEL,
    concurrency: Concurrency = "1,8,32",
    prompt_tokens: PromptTokens = "128",
    new_tokens: NewTokens = "64",
    repeats: Repeats = 3,
    url: Url = None,
    rate: Rate = 0.0,
    requests: Requests = 64,
    endpoint: Endpoint = "chat",
    served_model: ServedModel = None,
    api_key: ApiKey = None,
    ignore_eos: IgnoreEos = False,
    seed: Seed = 0,
    profile: Profile = False,
    output: Output = None,
    json: g.Json = False,
    options: EngineOptions = EngineOptions(),
) -> None:
    """Measure throughput offline, or latencies of a server under load."""
    check_output(output)
    levels = whole_numbers(concurrency)
    if profile:
        check_profile(url, options)
        lengths = whole_numbers(prompt_tokens)[0], whole_numbers(new_tokens)[0]
        result = profiled(model, options, *lengths, seed, quiet=json)
    elif url is None:
        lengths = whole_numbers(prompt_tokens)[0], whole_numbers(new_tokens)[0]
        result = offline(model, options, levels, *lengths, repeats, seed, quiet=json)
    else:
        from headrace.cli.load import Lengths, Traffic

        sizes = Lengths.parse(prompt_tokens), Lengths.parse(new_tokens)
        traffic = [
            Traffic(url, served_model, requests, level, rate, *sizes, seed, endpoint, api_key, ignore_eos)
            for level in levels
        ]
        result = online(traffic)
    from headrace.cli.machine import measured_on

    result = {"machine": measured_on(), "date": datetime.now(UTC).isoformat(timespec="seconds"), **result}
    show(result, output, json)


def check_output(path: Path | None) -> None:
    """Refused here, before minutes of measuring."""
    if path is not None and not path.parent.is_dir():
        raise InvalidRequest(f"--output {path}: {path.parent} is no folder; create it first.", "output")
    if path is not None and path.is_dir():
        raise InvalidRequest(f"--output {path} is a folder; give the path of a file.", "output")


def whole_numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise InvalidRequest(f"{text!r} is not a list of whole numbers from 1; write for example 1,8,32.")
    return numbers


def offline(
    model: str, options: EngineOptions, levels: list[int], prompt: int, new: int, repeats: int, seed: int, quiet: bool
) -> dict[str, Any]:
    from headrace.cli.offline import Load, measure

    with g.loaded_engine(model, options, quiet) as engine:
        measure(engine, Load(1, min(prompt, 16), min(new, 4), 1, seed))
        results = []
        for level in levels:
            if not quiet:
                note(f"{level} at a time, {prompt} + {new} tokens, {repeats} rounds …")
            results.append(measure(engine, Load(level, prompt, new, repeats, seed)))
        about = {"model": engine.model_name, "guarantees": asdict(engine.guarantees), "options": asdict(options)}
        return {"kind": "offline", **about, "results": results}


def check_profile(url: str | None, options: EngineOptions) -> None:
    if url is not None:
        raise InvalidRequest("--profile looks into an engine of its own; leave out --url.", "profile")
    if options.backend == "reference":
        raise InvalidRequest(
            "--profile needs kernels that measure themselves; leave out --backend reference.", "profile"
        )


def profiled(model: str, options: EngineOptions, words: int, new: int, seed: int, quiet: bool) -> dict[str, Any]:
    from headrace.cli.profile import profile
    from headrace.cli.served import profile_served
    from headrace.engine.engine import Engine

    with g.loaded_engine(model, options, quiet) as engine:
        assert isinstance(engine, Engine)
        profile(engine, min(words, 8), 4, seed)
        about = {"model": engine.model_name, "guarantees": asdict(engine.guarantees), "options": asdict(options)}
        result = {"kind": "profile", **about, **profile(engine, words, new, seed)}
    with g.loaded_engine(model, options, quiet, remote=True) as served:
        return result | {"served": profile_served(served, words, new, seed)}


def online(traffic: list[Any]) -> dict[str, Any]:
    import asyncio

    from headrace.cli.load import run_load

    results = []
    for part in traffic:
        about = asdict(part)
        del about["api_key"]
        results.append({"traffic": about, **asyncio.run(run_load(part))})
    return {"kind": "server", "results": results}


def show(result: dict[str, Any], output: Path | None, json: bool) -> None:
    from headrace.cli import offline as offline_figures

    if output is not None:
        write_result(result, output)
    if json:
        print_json(result)
    elif result["kind"] == "profile":
        show_profile(result)
    elif result["kind"] == "offline":
        columns = ("concurrency", "prefill tokens/s", "decode tokens/s", "output tokens/s")
        print_table(columns, offline_figures.table(result["results"]))
    else:
        for part in result["results"]:
            show_server(part)


def show_profile(result: dict[str, Any]) -> None:
    from headrace.cli.profile import table

    note(f"One request of {result['prompt_words']} words and {result['new_tokens']} new tokens.")
    print_table(("decode steps", "ms", "%"), table(result["decode"]))
    print_table(("whole request", "ms", "%"), table(result["request"]))
    served = result["served"]
    print_table(("the same over HTTP", "ms", "%"), table(served["parts"]))
    python, attributed = 100 * result["python_share"], 100 * result["attributed"]
    print(f"Python {python:.1f} % of a decode step; {attributed:.1f} % of the request attributed.")
    http, attributed = 100 * served["http_share"], 100 * served["attributed"]
    print(f"HTTP {http:.1f} % of the request to a server; {attributed:.1f} % of it attributed.")


def show_server(part: dict[str, Any]) -> None:
    errors = ", ".join(f"{count} × {kind}" for kind, count in part["errors"].items()) or "no errors"
    concurrency = part["traffic"]["concurrency"]
    note(f"{part['succeeded']} of {part['requests']} requests at concurrency {concurrency}; {errors}")
    print(f"{part['requests_per_second']:.2f} requests/s   {part['output_tokens_per_second']:.1f} tokens/s")
    print_table(("seconds", *PERCENTILES), [percentile_row(part, name) for name in TIMES])
    if part["succeeded"] and part["seconds_per_token"] is None:
        note("No seconds per token: every answer came in one piece, or had one token.")


TIMES = ("first_token_seconds", "seconds_per_token", "request_seconds")
PERCENTILES = ("p50", "p90", "p99", "max")


def percentile_row(part: dict[str, Any], name: str) -> tuple[str, ...]:
    found = part[name] or {}
    return (name.replace("_", " "), *(seconds(found.get(key)) for key in PERCENTILES))


def seconds(value: float | None) -> str:
    """With as many places as a short time needs to be more than zero."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.1 else f"{value:.5f}"


def write_result(result: dict[str, Any], path: Path) -> None:
    import json

    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
