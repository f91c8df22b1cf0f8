"""Every error a user can meet. Each message is one sentence that ends with the next step."""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of all errors that Headrace raises on purpose."""


class ModelFileError(HeadraceError):
    """A model file or folder is missing, cut off, foreign or inconsistent."""


class UnsupportedModel(HeadraceError):
    """The file is sound, but no family, operation or weight type here can run it."""


def embeds_only(model: str, verb: str) -> str:
    """The sentence of an encoder that is asked for text."""
    return f"{model} is an encoder and cannot {verb}; `headrace serve {model}` gives its embeddings at /v1/embeddings."


class PlanRejected(HeadraceError):
    """The memory asked for does not fit; raised before anything is loaded."""


class ContextExceeded(HeadraceError):
    """A prompt, or a prompt with its forced tokens, is longer than the context."""


class PagesExhausted(HeadraceError):
    """A sequence needs more pages than could ever be free for it."""


class InvalidRequest(HeadraceError, ValueError):
    """A field of a request is out of range or contradicts another; `field` names it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class SequenceBusy(HeadraceError):
    """A verb was called on a sequence whose extend has not finished."""


class SequenceClosed(HeadraceError):
    """A verb was called on a dropped sequence."""


class Cancelled(HeadraceError):
    """A score or read was cancelled before it was done."""


class Overloaded(HeadraceError):
    """The queue is full; try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineStopped(HeadraceError):
    """The engine was closed or its loop failed; no request can run any more."""
