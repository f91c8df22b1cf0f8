"""Attacks on what a server keeps of a text besides its ids: hidden states and the KV cache. The public weights help."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np

from headrace.privacy.attacks.artefact import Opened
from headrace.privacy.attacks.confidence import chance_of
from headrace.privacy.attacks.kv import plane_lengths, read_keys
from headrace.privacy.attacks.public_model import PublicBlocks
from headrace.privacy.attacks.recovery import Clock, Cost, Recovery, score_confidence, score_positions
from headrace.privacy.attacks.states import Beginning, Read, read_states
from headrace.spec.errors import InvalidRequest

AT_ONCE = 256
LEAST_KEYS = 8
"""Fewer cached tokens do not tell a plane's factor."""


def hidden_states(
    public: Opened,
    deployed: Opened,
    ids: np.ndarray,
    layer: int = 1,
    told: Sequence[int] = (),
    truth: np.ndarray | None = None,
    threads: int | None = None,
) -> Recovery:
    """A text from the states of one layer, by trying the vocabulary at each position (`states.read_states`).

    `ids` int [tokens]: the text on the wire, which the deployed model runs; the attack sees its states alone. `told`:
    its first tokens, a template's say, which are not scored. `truth` int [vocab]: the token of each id.
    Raises InvalidRequest where the two models differ or nothing is left to read.
    """
    _check(public, deployed, ids)
    if len(told) >= len(ids):
        raise InvalidRequest(f"All {len(ids)} tokens are told; give a longer text.", "told")
    with closing(_blocks(deployed, layer, len(ids), threads)) as served:
        observed = served.states(ids.tolist())
    clock = Clock()
    with closing(_blocks(public, layer, len(ids), threads)) as own:
        beginning = Beginning(told, own.states(told)) if told else None
        read = read_states(observed, own.vocabulary, "rotation", beginning)
    details = {"layer": layer, "told": len(told), "sure": float(read.sure.mean())}
    cost = clock.cost(observed, tokens=len(ids))
    # A position tells a norm and an inner product with each state before it.
    chance = float(np.mean([chance_of(1 + position) for position in range(len(told), len(ids))]))
    return _scored("hidden", read, ids[len(told) :], truth, public.spec.vocab, cost, chance, details)


def _blocks(model: Opened, depth: int, longest: int, threads: int | None) -> PublicBlocks:
    """Raises InvalidRequest for a layer that nothing comes behind, or for a text that the context does not hold."""
    if not model.spec.causal or not 1 <= depth < len(model.spec.layers):
        most = len(model.spec.layers) - 1
        raise InvalidRequest(f"{model.name} has no hidden state {depth}; give a decoder and 1 to {most}.", "layer")
    if longest > model.spec.context:
        raise InvalidRequest(f"{longest} tokens exceed the context of {model.spec.context}; give fewer.", "tokens")
    return PublicBlocks(model.spec, model.loaded.weights, depth, longest, AT_ONCE, threads, "auto")


def cached_keys(public: Opened, deployed: Opened, ids: np.ndarray, truth: np.ndarray | None = None) -> Recovery:
    """A text from the first layer's keys in the cache (`kv.read_keys`); `ids` and `truth` as in `hidden_states`."""
    _check(public, deployed, ids)
    if len(ids) < LEAST_KEYS:
        raise InvalidRequest(f"{len(ids)} cached tokens are too few; give at least {LEAST_KEYS}.", "ids")
    observed = plane_lengths(deployed, ids)
    clock = Clock()
    read = read_keys(observed, plane_lengths(public))
    cost = clock.cost(observed, tokens=len(ids))
    chance = chance_of(observed.shape[1] * observed.shape[2])
    details = {"layer": 0, "sure": float(read.sure.mean())}
    return _scored("kv", read, ids, truth, public.spec.vocab, cost, chance, details)


def _scored(
    attack: str,
    read: Read,
    ids: np.ndarray,
    truth: np.ndarray | None,
    vocab: int,
    cost: Cost,
    chance: float,
    details: dict[str, float],
) -> Recovery:
    if truth is None:
        return score_confidence(attack, read.sure, chance, cost, details=details)
    return score_positions(attack, read.tokens, truth[ids], vocab, cost, details)


def _check(public: Opened, deployed: Opened, ids: np.ndarray) -> None:
    if (public.spec.vocab, public.spec.hidden) != (deployed.spec.vocab, deployed.spec.hidden):
        raise InvalidRequest(f"{public.name} and {deployed.name} differ in shape; give two of one model.", "model")
    if not len(ids) or int(ids.min()) < 0 or int(ids.max()) >= public.spec.vocab:
        raise InvalidRequest(f"The ids are not below {public.spec.vocab}; give ids of this model's traffic.", "ids")
