"""What every route shares: the engine, the keys, the metrics; and the shell that turns a handler into a route."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.server.config import ServerConfig
from headrace.server.errors import ApiError, ClientGone, draining, error_response, refused, to_api_error
from headrace.server.keys import KeyRing
from headrace.server.labels import Labels
from headrace.server.lifecycle import Job, Lifecycle
from headrace.server.logprobs import TokenNames
from headrace.server.metrics import Metrics
from headrace.server.schema import EmbeddingRequest, GenerationRequest, decode
from headrace.spec.errors import EngineStopped, HeadraceError, Overloaded

if TYPE_CHECKING:
    from headrace.engine.surface import Surface
    from headrace.privacy.veil.notice import Notice

log = logging.getLogger("headrace.server")
SPARE_REQUESTS = 64
"""Requests that are taken beyond those the engines run and queue: they are arriving, or ask for less."""
_Request = TypeVar("_Request", bound=msgspec.Struct)


class Service:
    """One served model, and perhaps a second one for embeddings. `notice` is a veiled model's.

    Raises HeadraceError for a key file or policy that cannot be used and for two models of one name.
    """

    def __init__(
        self, engine: Surface, config: ServerConfig, embedder: Surface | None = None, notice: Notice | None = None
    ) -> None:
        self.engine = engine
        self.notice = notice
        self.embedder = embedder or engine
        self.config = config
        self.keys = KeyRing.read(config.api_keys)
        self.labels = Labels.read(config, self.keys)
        for served in (engine, self.embedder):
            self.labels.check(served.adapters)
        self.life = Lifecycle(config.request_seconds)
        self.metrics = Metrics(engine)
        self.created = int(time.time())
        self.most_requests = sum(e.options.running + e.options.queue for e in {engine, self.embedder}) + SPARE_REQUESTS
        self._names: dict[Surface, TokenNames] = {}
        self.name = config.model_name or engine.model_name
        if self.embedder is not engine and self.embedder.model_name == self.name:
            raise HeadraceError(f"The embedder is called {self.name} like the served model; choose a --model-name.")

    def names(self, engine: Surface) -> TokenNames:
        """How `engine`'s tokens are shown; kept, because looking a token up costs."""
        if engine not in self._names:
            self._names[engine] = TokenNames(engine.tokenizer)
        return self._names[engine]

    def models(self, principal: str) -> dict[str, Surface]:
        """Served name -> engine; behind the models their adapters, which can be asked for like models."""
        served = self.own_models()
        for engine in list(served.values()):
            seen = self.labels.adapters(principal, engine.adapters)
            served |= {name: engine for name in seen if name not in served}
        return served

    def own_models(self) -> dict[str, Surface]:
        served = {self.name: self.engine}
        if self.embedder is not self.engine:
            served[self.embedder.model_name] = self.embedder
        return served

    def adapter_of(
        self, engine: Surface, request: GenerationRequest | EmbeddingRequest, principal: str
    ) -> tuple[str | None, float]:
        """The adapter that a request means by `adapter` or by `model`, and its strength; raises ApiError 400.

        One that its label hides and one that is not there are refused in the same words.
        """
        model, adapter, scale = request.model, request.adapter, request.adapter_scale
        seen = self.labels.adapters(principal, engine.adapters)
        named = model if model in seen and model not in self.own_models() else None
        if named is not None and adapter not in (None, named):
            raise refused(f"`model` is the adapter {named} and `adapter` is {adapter}; send one of them.", "adapter")
        adapter = named if adapter is None else adapter
        if adapter is not None and adapter not in seen:
            loaded = f"use one of {', '.join(seen)}" if seen else "none is, so leave it out"
            raise refused(f"The adapter `{adapter}` is not loaded; {loaded}.", "adapter")
        if adapter is None and scale is not None:
            raise refused("`adapter_scale` is for an adapter; send `adapter` as well.", "adapter_scale")
        return adapter, 1.0 if scale is None else scale

    def named(self, model: str | None, default: Surface, principal: str) -> tuple[str, Surface]:
        """The served name and engine that a request means; raises ApiError 404."""
        served = self.models(principal)
        if model is None:
            return next(name for name, engine in served.items() if engine is default), default
        if model not in served:
            names = ", ".join(served)
            raise ApiError(404, f"The model `{model}` is not served here; use {names}.", "model", "model_not_found")
        return model, served[model]


@dataclass(slots=True)
class Context:
    """One request on its way to a handler."""

    service: Service
    job: Job
    request: Request
    principal: str
    body: bytes = b""

    @property
    def label(self) -> str | None:
        """What its answer is labelled, where there are labels."""
        return self.service.labels.label(self.principal)

    @property
    def sharing(self) -> str | None:
        return self.service.labels.sharing(self.principal)

    def log_user(self, user: str | None) -> None:
        if user is not None:
            log.info("principal %s, user %.64r", self.principal, user)

    async def decoded(self, kind: type[_Request]) -> _Request:
        return await decode(self.body, kind)


Handler = Callable[[Context], Awaitable[ASGIApp]]


class Endpoint:
    """An ASGI app around `handler`: keys, drain, limits, disconnects, errors and the count of outcomes.

    `public` routes need no key and answer while the server drains.
    """

    def __init__(self, service: Service, handler: Handler, public: bool = False) -> None:
        self.service = service
        self.handler = handler
        self.public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Sent(send)
        try:
            await self._serve(scope, receive, reply)
        except ClientGone as gone:
            reply.status = gone.status
        except Exception as error:
            if not isinstance(error, HeadraceError):
                log.exception("A request to %s failed.", scope["path"])
            elif isinstance(error, EngineStopped):
                log.error("A request to %s failed: %s", scope["path"], error)
            if not reply.status:
                await error_response(error)(scope, receive, reply)
            else:
                reply.status = to_api_error(error).status
        finally:
            self.service.metrics.answered(_route(scope), reply.status)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self.service
        request = Request(scope, receive)
        if service.life.draining and not self.public:
            raise draining()
        principal = "" if self.public else service.keys.principal(request.headers.get("authorization"))
        if not self.public and len(service.life.jobs) >= service.most_requests:
            raise Overloaded(f"{service.most_requests} requests are under way already; try again in a moment.")
        async with service.life.job() as job:
            context = Context(service, job, request, principal)
            if request.method == "POST":
                context.body = await _read_body(request, receive, service.config)
                job.watch(receive)
            reply = await self.handler(context)
            await reply(scope, receive, send)


class _Sent:
    """`send` that remembers the status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def json_reply(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _route(scope: Scope) -> str:
    path: str = scope["path"]
    return "/v1/models/{model}" if path.startswith("/v1/models/") else path


async def _read_body(request: Request, receive: Receive, config: ServerConfig) -> bytes:
    # A web page of another origin can send any other type, or none, without asking the server first.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        found = f"The content type {kind!r} is not taken" if kind else "The body has no content type"
        raise ApiError(415, f"{found}; send `Content-Type: application/json`.")
    try:
        async with asyncio.timeout(config.body_seconds):
            return await _collect(receive, config.max_request_bytes)
    except TimeoutError:
        message = f"The body did not arrive within {config.body_seconds:g} seconds; send it faster."
        raise ApiError(408, message, headers={"Connection": "close"}) from None


async def _collect(receive: Receive, limit: int) -> bytes:
    """Up to `limit` bytes. A longer body is read a while and thrown away, so that the client reads the refusal."""
    body, size, more = bytearray(), 0, True
    while more and size <= 4 * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone()
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            body += chunk
        more = message.get("more_body", False)
    if size > limit:
        text = f"The body is larger than the limit of {limit:,} bytes; send less."
        raise ApiError(413, text, headers={"Connection": "close"})
    return bytes(body)
