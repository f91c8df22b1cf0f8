"""Talks to a server that takes and gives token ids: OpenAI's completions with `return_token_ids`, streamed."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import httpx

from headrace.engine.sampling import TokenLogprob
from headrace.privacy.veil.errors import OtherKey, UpstreamFailed
from headrace.privacy.veil.notice import KEY_HEADER, Notice
from headrace.privacy.veil.tokens import TokenMap
from headrace.spec.errors import HeadraceError, InvalidRequest, Overloaded
from headrace.spec.sampling import Sampling

TOKEN_NAME = "token_id:"
"""How a server without a tokenizer names a token in log-probabilities."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one event brought, in the source's ids."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] | None = None
    prompt: list[TokenLogprob | None] | None = None
    cached: int | None = None
    ended: str | None = None
    """Why the server's answer ends here, where it does."""


@dataclass(frozen=True, slots=True)
class Served:
    """What the server says of itself; `notice` is None where it says nothing of a veil."""

    model: str
    context: int | None
    notice: Notice | None = None


class Upstream:
    """One server, and a thread whose event loop holds the connections to it.

    `check` is told what the server says of itself, at the start and before anything is sent over a new connection,
    as that may lead to another process than the last one; it raises what the request then fails with. Every answer
    has to say `key_id`; those of a `foreign` server may say nothing.
    """

    def __init__(
        self,
        url: str,
        tokens: TokenMap,
        key_id: str,
        api_key: str | None = None,
        check: Callable[[Served], None] = lambda served: None,
        foreign: bool = False,
    ) -> None:
        self.url, self.tokens, self._check = url.rstrip("/"), tokens, check
        self._key_id, self._foreign = key_id, foreign
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        how: dict[str, Any] = {"headers": headers, "timeout": httpx.Timeout(600, connect=10)}
        self._client = httpx.AsyncClient(**how)
        # Asks over a connection of its own each time: a kept one could lead to where the old answer came from.
        self._asking = httpx.AsyncClient(**how, limits=httpx.Limits(max_keepalive_connections=0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="headrace-veil", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def post(self, action: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(action)

    def close(self) -> None:
        """Lets what was cancelled end, then closes the connections; a second call does nothing."""
        if self._thread.is_alive():
            self.run(self._close()).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()

    async def _close(self) -> None:
        own = asyncio.current_task()
        if others := [task for task in asyncio.all_tasks() if task is not own]:
            await asyncio.wait(others, timeout=2)
        await self._client.aclose()
        await self._asking.aclose()

    def served(self) -> Served:
        """The first model that it serves. Raises UpstreamFailed where nothing answers, and what `check` does."""
        return self.run(self._served()).result()

    async def _served(self) -> Served:
        served = await self._asked()
        self._check(served)
        return served

    async def _traced(self, event: str, _: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            await self._served()

    async def _asked(self) -> Served:
        try:
            reply = await self._asking.get(f"{self.url}/models")
            card = reply.raise_for_status().json()["data"][0]
            notice = Notice.read(card["veil"], f"{self.url}/models") if card.get("veil") else None
            return Served(str(card["id"]), card.get("max_model_len"), notice)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UpstreamFailed(
                f"{self.url}/models does not answer like an OpenAI-compatible server ({type(error).__name__});"
                " start `headrace serve` on the veiled folder, or check --url."
            ) from None

    def body(self, model: str, ids: list[int], most: int, sampling: Sampling, ends: list[int], seed: int) -> dict:
        """A request in veiled ids, each list in their order. End tokens are given, as the server knows none."""
        veiled, names = self.tokens.veiled, ("top_k", "top_p", "min_p", "repetition_penalty")
        given = {name: getattr(sampling, name) for name in (*names, "presence_penalty", "frequency_penalty")}
        moved = sorted(zip(veiled(list(sampling.logit_bias)), sampling.logit_bias.values(), strict=True))
        bias = {str(id): value for id, value in moved}
        body: dict[str, Any] = {
            "model": model, "prompt": veiled(ids), "max_tokens": most, "temperature": sampling.temperature,
            "seed": seed,
            "stop_token_ids": sorted(veiled(ends)), "ignore_eos": True, "stream": True, "return_token_ids": True,
            "stream_options": {"include_usage": True}, "logit_bias": bias or None, "logprobs": sampling.logprobs,
            "prompt_logprobs": sampling.prompt_logprobs,
        }  # fmt: skip
        return {name: value for name, value in (body | given).items() if value is not None}

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[Arrival, None]:
        """Events of a completion, to its end. Raises Overloaded, InvalidRequest, UpstreamFailed, what `check` does."""
        ended, some = None, not body["max_tokens"]
        how: dict[str, Any] = {"json": body, "extensions": {"trace": self._traced}}
        try:
            async with self._client.stream("POST", f"{self.url}/completions", **how) as reply:
                self._same_key(reply)
                if reply.status_code != 200:
                    raise refusal(reply.status_code, await reply.aread(), body)
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        arrival = self._read(line[6:], body.get("logprobs"))
                        ended, some = arrival.ended or ended, some or bool(arrival.ids)
                        yield arrival
        except httpx.HTTPError as error:
            raise UpstreamFailed(
                f"The veiled server at {self.url} does not answer ({type(error).__name__}); start it again."
            ) from None
        if ended is None:
            raise UpstreamFailed("The veiled server broke off in the middle of an answer; send the request again.")
        if ended == "length" and not some:
            raise UpstreamFailed("The veiled server gives no token ids; take one that knows `return_token_ids`.")

    def _same_key(self, reply: httpx.Response) -> None:
        """Servers behind one address may differ in what they serve. Raises OtherKey.

        A gateway's refusals say no key; they are refusals all the same.
        """
        said = reply.headers.get(KEY_HEADER)
        if said is None and not (self._foreign or reply.is_error):
            raise silent(f"An answer from {self.url}")
        if said not in (None, self._key_id):
            raise OtherKey(f"One of the servers at {self.url} has the key {said[:16]}; serve one folder there.")

    def _read(self, line: str, top: int | None) -> Arrival:
        """One event. Raises UpstreamFailed for nonsense and for an error, whose text is kept back as a refusal's is."""
        try:
            event = json.loads(line)
            if "error" not in event:
                return self._arrival(event, top)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, HeadraceError):
                raise
            raise UpstreamFailed(
                f"{self.url} answers in another way than token ids of this model ({type(error).__name__}); check --url."
            ) from None
        raise UpstreamFailed("The veiled server failed in the middle of an answer; send the request again.")

    def _arrival(self, event: dict[str, Any], top: int | None) -> Arrival:
        usage, choices = event.get("usage"), event.get("choices") or [{}]
        choice, cached = choices[0], None
        if usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        ids = self.tokens.plain(choice.get("token_ids") or [])
        logprobs = self._logprobs(choice.get("logprobs"), ids, top) if top is not None and ids else None
        ended = choice.get("finish_reason")
        return Arrival(ids, logprobs, self._prompt(choice.get("prompt_logprobs")), cached, ended)

    def _logprobs(self, given: dict[str, Any] | None, ids: list[int], top: int | None) -> list[TokenLogprob]:
        if given is None or len(given["token_logprobs"]) != len(ids):
            raise InvalidRequest("The veiled server gives no log-probabilities; leave logprobs out.", "logprobs")
        tops = given.get("top_logprobs") or [{}] * len(ids)
        values = zip(ids, given["token_logprobs"], tops, strict=True)
        return [TokenLogprob(id, float(value), self._named(named or {})) for id, value, named in values]

    def _named(self, named: dict[str, float]) -> tuple[tuple[int, float], ...]:
        if not all(name.startswith(TOKEN_NAME) for name in named):
            raise InvalidRequest("The veiled server names tokens by text; serve the folder without a tokenizer.", None)
        ids = self.tokens.plain([int(name.removeprefix(TOKEN_NAME)) for name in named])
        return tuple(zip(ids, map(float, named.values()), strict=True))

    def _prompt(self, given: list[dict[str, Any] | None] | None) -> list[TokenLogprob | None] | None:
        if given is None:
            return None
        return [None if entry is None else self._prompt_entry(entry) for entry in given]

    def _prompt_entry(self, entry: dict[str, Any]) -> TokenLogprob:
        ids = self.tokens.plain([entry["token_id"], *(id for id, _ in entry["top"])])
        return TokenLogprob(ids[0], entry["logprob"], tuple(zip(ids[1:], (v for _, v in entry["top"]), strict=True)))


def silent(what: str) -> OtherKey:
    """Of an answer or a server that does not say its key."""
    return OtherKey(
        f"{what} lacks {KEY_HEADER}, by which a veiled server says its key; run `headrace serve` on the veiled folder"
        " there, or give --foreign where another program serves it."
    )


def refusal(status: int, text: bytes, sent: Mapping[str, Any]) -> HeadraceError:
    """What a veiled server's refusal means to the client, who is told no more of its text than a field that was `sent`.

    The rest may hold veiled ids.
    """
    try:
        named_field = re.split(r"\W", json.loads(text)["error"]["param"])[0]
    except (ValueError, LookupError, TypeError, AttributeError):
        named_field = ""
    param = named_field if named_field in sent else None
    if status in (429, 503):
        return Overloaded(f"The veiled server takes no more requests now ({status}); try again in a moment.")
    if status in (401, 403):
        return UpstreamFailed(f"The veiled server refuses the proxy ({status}); give its key with --upstream-key.")
    named = f" `{param}`" if param else " the request"
    return InvalidRequest(f"The veiled server refuses{named} ({status}); leave it out or change it.", param)
