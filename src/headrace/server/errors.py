"""Every refusal in OpenAI's error shape, and which status each Headrace error has."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headrace.privacy.veil.errors import UpstreamFailed
from headrace.spec.errors import (
    ContextExceeded,
    EngineStopped,
    HeadraceError,
    InvalidRequest,
    Overloaded,
    PagesExhausted,
)

INVALID = "invalid_request_error"
STOPPED = "The engine has stopped; try again later, or ask whoever runs the server to read its log and restart it."
"""All that a client is told: what ended an engine names files, sizes and code, and stands in the log."""
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
}


class ErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    """`{"error": {"message", "type", "param", "code"}}`, the body of every status from 400 on."""

    error: ErrorBody


class ApiError(HeadraceError):
    """A refusal with its HTTP status. `param` names the field, `code` is a stable word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code or _CODES.get(status)
        self.headers = dict(headers or {})

    @property
    def reply(self) -> ErrorReply:
        kind = _KINDS.get(self.status, INVALID if self.status < 500 else "server_error")
        return ErrorReply(ErrorBody(str(self), kind, self.param, self.code))


class ClientGone(ApiError):
    """The client closed the connection; nobody reads the answer. 499 appears in the metrics only."""

    def __init__(self) -> None:
        super().__init__(499, "The client closed the connection.", code="client_gone")


def refused(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A 400."""
    return ApiError(400, message, param, code)


def draining() -> ApiError:
    message = "The server is stopping; send the request to another one or try again later."
    return ApiError(503, message, code="draining", headers={"Retry-After": "5", "Connection": "close"})


def to_api_error(error: Exception) -> ApiError:
    """The refusal that tells a client about `error`; an unforeseen one becomes a plain 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, _sentence(error), headers=error.headers)
    if isinstance(error, Overloaded):
        wait = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
        return ApiError(429, str(error), code="overloaded", headers=wait)
    if isinstance(error, EngineStopped):
        said = str(error) if isinstance(error, UpstreamFailed) else STOPPED
        return ApiError(503, said, code="engine_stopped")
    if isinstance(error, (ContextExceeded, PagesExhausted)):
        return refused(str(error), code="context_length_exceeded")
    if isinstance(error, HeadraceError):
        return refused(str(error), error.field if isinstance(error, InvalidRequest) else None)
    return ApiError(500, "The server failed on this request; see its log.", code="internal_error")


def error_response(error: Exception) -> Response:
    api = to_api_error(error)
    body = msgspec.json.encode(api.reply)
    return Response(body, api.status, headers=api.headers, media_type="application/json")


def _sentence(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is no such route; see /openapi.json for the list."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"This route does not take that method; use {allowed}."
    return str(error.detail)
