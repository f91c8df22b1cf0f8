"""POST /v1/embeddings: the mean of the last hidden states, L2-normalised."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from starlette.responses import Response
from starlette.types import ASGIApp

from headrace.server.errors import refused
from headrace.server.generation import Call, Prompt, open_sequence
from headrace.server.replies import Embedding, EmbeddingReply, EmbeddingUsage, Extras
from headrace.server.request import text_prompts
from headrace.server.schema import EmbeddingRequest, ignored
from headrace.server.service import Context
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.engine.surface import Surface

POOLING = "mean of hidden:-1, L2-normalised"
MOST_INPUTS = 2048
TOGETHER = 32
"""Inputs of one request that are read at the same time."""


async def embeddings(context: Context) -> ASGIApp:
    """Reads every input and answers in their order."""
    request = await context.decoded(EmbeddingRequest)
    model, engine = context.service.named(request.model, context.service.embedder, context.principal)
    prompts = text_prompts(engine, request.input, "input")
    if len(prompts) > MOST_INPUTS:
        raise refused(f"`input` has {len(prompts)} entries, more than {MOST_INPUTS}; send fewer.", "input")
    context.log_user(request.user)
    adapter, scale = context.service.adapter_of(engine, request, context.principal)
    call = Call(
        prompts,
        Sampling(),
        Stop(),
        principal=context.principal,
        sharing=context.sharing,
        label=context.label,
        adapter=adapter,
        adapter_scale=scale,
    )
    vectors, tokens = await _read_all(engine, call)
    promised = engine.guarantees
    extras = Extras(
        promised.backend,
        promised.profile,
        promised.bit_exact,
        pooling=POOLING,
        adapter=adapter or msgspec.UNSET,
        adapter_scale=scale if adapter else msgspec.UNSET,
        label=call.label or msgspec.UNSET,
        ignored=ignored(request) or msgspec.UNSET,
    )
    body = await asyncio.to_thread(_encode, vectors, tokens, request.encoding_format, model, extras)
    return Response(body, media_type="application/json")


async def _read_all(engine: Surface, call: Call) -> tuple[list[np.ndarray], int]:
    """Normalised vectors [hidden], and how many tokens were read. A failure cancels the other reads."""
    vectors: list[np.ndarray] = []
    tokens = 0
    for start in range(0, len(call.prompts), TOGETHER):
        try:
            async with asyncio.TaskGroup() as group:
                reads = [
                    group.create_task(_read(engine, prompt, call)) for prompt in call.prompts[start : start + TOGETHER]
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        for read in reads:
            vector, count = read.result()
            vectors.append(vector)
            tokens += count
    return vectors, tokens


async def _read(engine: Surface, prompt: Prompt, call: Call) -> tuple[np.ndarray, int]:
    sequence = await open_sequence(engine, prompt, call, None)
    with sequence:
        vector = await sequence.read("hidden:-1", pool="mean")
        return vector / max(float(np.linalg.norm(vector)), 1e-12), sequence.prompt_tokens


def _encode(vectors: Sequence[np.ndarray], tokens: int, form: str | None, model: str, extras: Extras) -> bytes:
    data = [Embedding(index, _written(vector, form)) for index, vector in enumerate(vectors)]
    return msgspec.json.encode(EmbeddingReply(data, model, EmbeddingUsage(tokens, tokens), extras))


def _written(vector: np.ndarray, form: str | None) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    values: list[float] = vector.tolist()
    return values
