"""The server's side over HTTP: states go and come as raw little-endian float32.

GET /split tells what is served; POST /split/{sequence}?start=N takes [n, hidden] and gives as much; DELETE forgets.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headrace.privacy.split.blocks import Blocks, StateLost
from headrace.privacy.split.piece import STEP
from headrace.spec.errors import ContextExceeded, HeadraceError, InvalidRequest

log = logging.getLogger("headrace.split")
WIRE = "<f4"
STATES = "application/octet-stream"
STATUS: dict[type[HeadraceError], int] = {StateLost: 409, ContextExceeded: 413, InvalidRequest: 400}
FAILED = "The blocks could not be run; begin the sequence again, or ask whoever runs the server to read its log."
"""All that a client is told of any other failure, which may name files and sizes and stands in the log."""


def create_app(blocks: Blocks, name: str) -> Starlette:
    """The blocks run in one thread of their own. `name`: the model's, for the client's check."""
    service = _Service(blocks, name)
    routes = [
        Route("/split", service.about),
        Route("/split/{sequence}", service.run, methods=["POST"]),
        Route("/split/{sequence}", service.drop, methods=["DELETE"]),
    ]
    return Starlette(routes=routes, exception_handlers={HeadraceError: _refuse, Exception: _fail})


def about(name: str, depth: int, layers: int, hidden: int) -> dict[str, Any]:
    """What both sides must have alike."""
    return {"model": name, "k": depth, "layers": layers, "hidden": hidden, "step": STEP}


class _Service:
    def __init__(self, blocks: Blocks, name: str) -> None:
        self._blocks, self._most = blocks, 4 * STEP * blocks.hidden
        self._about = about(name, blocks.depth, blocks.layers, blocks.hidden) | {"context": blocks.context}
        self._worker = ThreadPoolExecutor(1, "headrace-split")

    async def about(self, request: Request) -> Response:
        return JSONResponse(self._about)

    async def run(self, request: Request) -> Response:
        states, start = self._states(await self._body(request)), _start(request)
        out = await self._do(partial(self._blocks.run, request.path_params["sequence"], start, states))
        return Response(out.astype(WIRE, copy=False).tobytes(), media_type=STATES)

    async def drop(self, request: Request) -> Response:
        await self._do(partial(self._blocks.drop, request.path_params["sequence"]))
        return Response(status_code=204)

    async def _do(self, work: partial[Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._most:
                raise InvalidRequest(f"A message may have {STEP} states; send the rest in a second one.", "states")
        return bytes(body)

    def _states(self, body: bytes) -> np.ndarray:
        width = 4 * self._blocks.hidden
        if len(body) % width:
            raise InvalidRequest(f"{len(body)} bytes are no states of {width} bytes each; send float32.", "states")
        return np.frombuffer(body, WIRE).astype(np.float32).reshape(-1, self._blocks.hidden)


def _start(request: Request) -> int:
    text = request.query_params.get("start", "")
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest(f"start is {text[:20]!r}; give the position of the first state.", "start")
    return int(text)


async def _refuse(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), None)
    return await _fail(request, error) if status is None else JSONResponse({"error": str(error)}, status)


async def _fail(request: Request, error: Exception) -> Response:
    log.error("The blocks could not be run: %s", error)
    return JSONResponse({"error": FAILED}, 500)
