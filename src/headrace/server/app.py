"""The HTTP application: its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.server.chat import chat
from headrace.server.completions import completions
from headrace.server.config import ServerConfig
from headrace.server.embeddings import embeddings
from headrace.server.errors import STOPPED, ApiError, draining, error_response
from headrace.server.openapi import document
from headrace.server.replies import Health, ModelCard, ModelList
from headrace.server.service import Context, Endpoint, Handler, Service, json_reply, log
from headrace.server.tokens import detokenize, tokenize

if TYPE_CHECKING:
    from headrace.engine.surface import Surface
    from headrace.privacy.veil.notice import Notice


def create_app(
    engine: Surface,
    config: ServerConfig | None = None,
    embedder: Surface | None = None,
    notice: Notice | None = None,
) -> Starlette:
    """The OpenAI-compatible application over `engine`; `embedder` answers /v1/embeddings where given.

    `notice` is a veiled model's, for every response to carry.
    Raises HeadraceError for a key file or policy that cannot be used and for two models of one name.
    """
    service = Service(engine, config or ServerConfig(), embedder, notice)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.metrics.close()

    async def unrouted(_: Request, error: Exception) -> Response:
        response = error_response(error)
        service.metrics.answered("other", response.status_code)
        return response

    told = [] if notice is None else [Middleware(Announced, headers=notice.headers)]
    handlers: Any = {HTTPException: unrouted}
    app = Starlette(routes=_routes(service), middleware=told, lifespan=lifespan, exception_handlers=handlers)
    app.state.service = service
    return app


class Announced:
    """Adds the same headers to every response."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def announcing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        await self._app(scope, receive, announcing)


def _routes(service: Service) -> list[Route]:
    specification = msgspec.json.encode(document(service.config))

    async def openapi(_: Context) -> ASGIApp:
        return Response(specification, media_type="application/json")

    def get(path: str, handler: Handler, public: bool = False) -> Route:
        return Route(path, Endpoint(service, handler, public), methods=["GET"])

    def post(path: str, handler: Handler) -> Route:
        return Route(path, Endpoint(service, handler), methods=["POST"])

    return [
        post("/v1/chat/completions", chat),
        post("/v1/completions", completions),
        post("/v1/embeddings", embeddings),
        get("/v1/models", _models),
        get("/v1/models/{model:path}", _model),
        post("/tokenize", tokenize),
        post("/detokenize", detokenize),
        get("/health", _health, public=True),
        get("/metrics", _metrics),
        get("/openapi.json", openapi, public=True),
        get("/", _pointer, public=True),
    ]


async def _models(context: Context) -> ASGIApp:
    return json_reply(ModelList(_cards(context)))


async def _model(context: Context) -> ASGIApp:
    wanted = context.request.path_params["model"]
    context.service.named(wanted, context.service.engine, context.principal)
    return json_reply(next(card for card in _cards(context) if card.id == wanted))


def _cards(context: Context) -> list[ModelCard]:
    service = context.service
    own = service.own_models()
    parents = {engine: name for name, engine in own.items()}
    cards = []
    for name, engine in service.models(context.principal).items():
        card = ModelCard(name, service.created, engine.context)
        if name not in own:
            card.parent = parents[engine]
        if engine is service.engine and service.notice is not None:
            card.veil = service.notice
        cards.append(card)
    return cards


async def _health(context: Context) -> ASGIApp:
    service = context.service
    if service.life.draining:
        raise draining()
    for engine in {service.engine, service.embedder}:
        if reason := engine.healthy():
            log.error("The engine does not run: %s", reason)
            raise ApiError(503, STOPPED, code="unhealthy")
    return json_reply(Health("ok", service.name))


async def _metrics(context: Context) -> ASGIApp:
    context.service.labels.check_metrics(context.principal)
    return Response(context.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _pointer(_: Context) -> ASGIApp:
    return PlainTextResponse("Headrace. The API is under /v1; its description is /openapi.json.\n")
