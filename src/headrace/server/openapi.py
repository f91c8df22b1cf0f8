"""/openapi.json, made from the request and reply structs."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.server import replies, schema
from headrace.server.config import ServerConfig
from headrace.server.errors import ErrorReply

_POSTS: dict[str, tuple[str, type[msgspec.Struct], type[msgspec.Struct]]] = {
    "/v1/chat/completions": ("Answer a conversation", schema.ChatRequest, replies.ChatCompletion),
    "/v1/completions": ("Continue a prompt", schema.CompletionRequest, replies.TextCompletion),
    "/v1/embeddings": ("Embed texts", schema.EmbeddingRequest, replies.EmbeddingReply),
    "/tokenize": ("Text or messages to token ids", schema.TokenizeRequest, replies.TokenizeReply),
    "/detokenize": ("Token ids to text", schema.DetokenizeRequest, replies.DetokenizeReply),
}
_GETS: dict[str, tuple[str, type[msgspec.Struct]]] = {
    "/v1/models": ("Models that are served", replies.ModelList),
    "/v1/models/{model}": ("One served model", replies.ModelCard),
    "/health": ("Whether the engine runs", replies.Health),
}
_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "A chunk or an error as JSON; the last one is [DONE]."}},
}
"""The schema of one server-sent event."""
_STREAMED = {"/v1/chat/completions", "/v1/completions"}
_STATUS = {
    400: "A field is wrong, unknown or not supported; `param` names it.",
    401: "The API key is missing or unknown.",
    404: "The model is not served here.",
    405: "The route does not take this method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The content type is missing or not application/json.",
    429: "The queue is full, or too many requests are under way; try again after Retry-After seconds.",
    503: "The server is stopping, or its engine does not run.",
    504: "The request took longer than the server allows.",
}
_RETRY = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds to wait.", "required": True}}


def document(config: ServerConfig) -> dict[str, Any]:
    """The OpenAPI 3.1 description of what `create_app` serves."""
    components = _components()
    for name in ("ChatRequest", "CompletionRequest", "EmbeddingRequest"):
        _narrow(components[name], schema.neutral(getattr(schema, name)))
    paths: dict[str, Any] = {path: {"post": _post(path, *entry)} for path, entry in _POSTS.items()}
    paths |= {path: {"get": _get(path, *entry)} for path, entry in _GETS.items()}
    paths["/metrics"] = {"get": _text("Prometheus metrics", "getMetrics", secured=True)}
    paths["/"] = {"get": _text("Where the API is", "getRoot", secured=False)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": "1", "description": "OpenAI-compatible inference."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if config.api_keys else [],
    }


def _components() -> dict[str, Any]:
    kinds: list[type] = [ErrorReply, replies.ChatChunk]
    for _, request, reply in _POSTS.values():
        kinds += [request, reply]
    kinds += [reply for _, reply in _GETS.values()]
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return dict(components)


def _narrow(component: dict[str, Any], neutral: dict[str, tuple[Any, ...]]) -> None:
    """Says in the schema what the code after the decoder refuses."""
    properties = component["properties"]
    for name, values in neutral.items():
        if name in properties:
            properties[name] = {"enum": [None, *values], "description": "Only neutral values; not supported."}
    for name in schema.IGNORED:
        if name in properties:
            properties[name] = {"description": "Accepted, without effect; echoed under `headrace.ignored`."}
    for name in ("prompt", "input"):
        if name in properties:
            properties[name] = _prompt_schema()


def _prompt_schema() -> dict[str, Any]:
    ids = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
    texts = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    return {"anyOf": [{"type": "string"}, texts, ids, {"type": "array", "minItems": 1, "items": ids}]}


def _post(path: str, summary: str, request: type[msgspec.Struct], reply: type[msgspec.Struct]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _ref(reply)}}
    if path in _STREAMED:
        content["text/event-stream"] = {"schema": _EVENT}
    return {
        "summary": summary,
        "description": (request.__doc__ or "").strip(),
        "operationId": request.__name__.removesuffix("Request").lower(),
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
        "responses": {"200": {"description": summary, "content": content}, **_errors(_STATUS)},
    }


def _get(path: str, summary: str, reply: type[msgspec.Struct]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": f"get{reply.__name__}",
        "responses": {
            "200": {"description": summary, "content": {"application/json": {"schema": _ref(reply)}}},
            **_errors((401, 404, 405, 503)),
        },
    }
    if "{model}" in path:
        name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        operation["parameters"] = [name]
    if path == "/health":
        operation["security"] = []
    return operation


def _text(summary: str, name: str, secured: bool) -> dict[str, Any]:
    answer = {"description": summary, "content": {"text/plain": {"schema": {"type": "string"}}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": name,
        "responses": {"200": answer, **_errors((401, 405, 503))},
    }
    if not secured:
        operation["security"] = []
    return operation


def _errors(statuses: Any) -> dict[str, Any]:
    return {str(status): _error(status) for status in statuses}


def _error(status: int) -> dict[str, Any]:
    error: dict[str, Any] = {
        "description": _STATUS[status],
        "content": {"application/json": {"schema": _ref(ErrorReply)}},
    }
    if status == 429:
        error["headers"] = _RETRY
    return error


def _ref(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
