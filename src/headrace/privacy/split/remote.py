"""An Upstream behind HTTP."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx
import numpy as np

from headrace.privacy.split.service import STATES, STATUS, WIRE, about
from headrace.spec.errors import EngineStopped, InvalidRequest
from headrace.spec.model import ModelSpec

_ERRORS = {status: kind for kind, status in STATUS.items()}


class Remote:
    """`url`: base of a server of `create_app`. Raises EngineStopped where none answers."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(timeout=httpx.Timeout(600, connect=10))

    def check(self, spec: ModelSpec, name: str, depth: int) -> None:
        """Raises InvalidRequest naming what the server has otherwise than this side."""
        theirs: dict[str, Any] = self._ask("GET", "/split").json()
        for what, ours in about(name, depth, len(spec.layers), spec.hidden).items():
            if theirs.get(what) != ours:
                raise InvalidRequest(
                    f"The server's {what} is {theirs.get(what)}, not {ours}; start it with the same model and k.", what
                )

    def run(self, sequence: str, start: int, states: np.ndarray) -> np.ndarray:
        body = states.astype(WIRE, copy=False).tobytes()
        reply = self._ask(
            "POST", f"/split/{sequence}", params={"start": start}, content=body, headers={"Content-Type": STATES}
        )
        if len(reply.content) != len(body):
            raise EngineStopped(f"{self.url} gave {len(reply.content)} bytes for {len(body)}; check --url.")
        return np.frombuffer(reply.content, WIRE).astype(np.float32).reshape(states.shape)

    def drop(self, sequence: str) -> None:
        self._ask("DELETE", f"/split/{sequence}")

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            reply = self._client.request(method, self.url + path, **more)
        except httpx.HTTPError as error:
            raise EngineStopped(
                f"{self.url} does not answer ({type(error).__name__}); start `headrace split serve` there, or check"
                " --url."
            ) from None
        if reply.is_success:
            return reply
        raise _ERRORS.get(reply.status_code, EngineStopped)(_sentence(reply))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sentence(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"])
    except (ValueError, LookupError, TypeError):
        return f"{reply.url} refuses with status {reply.status_code}; check --url."
