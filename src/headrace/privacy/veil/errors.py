"""What is refused of keys, symmetries and artefacts."""

from __future__ import annotations

from headrace.spec.errors import EngineStopped, HeadraceError


class SymmetryError(HeadraceError):
    """A transformation that would change what the model computes, or a part of it that nobody can transform."""


class KeyFileError(HeadraceError):
    """A key file is missing, locked, foreign, or readable by others."""


class ArtefactError(HeadraceError):
    """A veiled model was changed, is not this key's, or holds what would give the key away."""


class TokensSpent(HeadraceError):
    """A token map has been used for as many tokens as its key allows."""


class UpstreamFailed(EngineStopped):
    """A veiled server does not answer as one does. The words are the proxy's own, so its clients may read them."""


class OtherKey(UpstreamFailed):
    """A server's model was veiled with another key than the client's, or in another epoch."""
