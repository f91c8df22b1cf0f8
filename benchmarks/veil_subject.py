"""What the attacks of veil_attacks.py are run against: a model's real embedding and tokenizer under random keys."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from veil_deployed import attack_deployed

from headrace.model.catalogue import cache_folder
from headrace.model.gguf_file import read_gguf
from headrace.model.tokenizer import Tokenizer
from headrace.privacy.attacks.align import align
from headrace.privacy.attacks.bigram import bigram, by_rank
from headrace.privacy.attacks.corpora import Work, split, without_near_duplicates, works
from headrace.privacy.attacks.known_pairs import pairs_of, with_traffic, with_weights
from headrace.privacy.attacks.recovery import Clock, Recovery, score_map
from headrace.privacy.attacks.traffic import traffic


class Texts(NamedTuple):
    """A domain and run: the victim's and the attacker's ids, int [tokens] each."""

    victim: np.ndarray
    attacker: np.ndarray


class Subject:
    """`embedding` float32 [vocab, dim]; `gain` float32 [dim], of the final norm. Keys are drawn by numpy.

    `path`: the model's own, for the attacks on what `veil export` writes of it.
    """

    def __init__(
        self,
        name: str,
        embedding: np.ndarray,
        gain: np.ndarray,
        encode: Callable[[str], Sequence[int]],
        path: Path = Path(),
    ):
        self.name, self.embedding, self.gain, self.encode, self.path = name, embedding, gain, encode, path
        self.texts = cache(self._texts)

    @classmethod
    def load(cls, path: Path) -> Subject:
        """From a GGUF file, or a folder with one."""
        file = read_gguf(path if path.is_file() else next(path.glob("*.gguf")))
        tokenizer = Tokenizer.from_gguf(file)
        assert tokenizer is not None
        tables = [file.tensors[name].numpy() for name in ("token_embd.weight", "output_norm.weight")]
        return cls(file.name, *tables, tokenizer.encode, path)

    @property
    def vocab(self) -> int:
        return len(self.embedding)

    @property
    def digest(self) -> str:
        return sha256(self.embedding.tobytes()).hexdigest()

    def _texts(self, domain: str, run: int) -> Texts:
        """Kept in the user's cache: to part, compare and encode thirty megabytes takes most of a minute."""
        path = cache_folder() / "privacy" / f"{domain}-{run}-{platform.python_version()}-{self.digest[:16]}.npz"
        if not path.exists():
            found = self._made(domain, run)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path.with_suffix(".part.npz"), **found._asdict())
            path.with_suffix(".part.npz").replace(path)
        with np.load(path) as stored:
            return Texts(stored["victim"], stored["attacker"])

    def _made(self, domain: str, run: int) -> Texts:
        if domain == "in-domain":
            ours, theirs = split(works("source"), run)
        else:
            ours, theirs = works("shakespeare"), works("documentation")
        victim = without_near_duplicates(_all(ours))
        return Texts(self._ids(victim), self._ids(without_near_duplicates(_all(theirs), victim)))

    def _ids(self, texts: Sequence[str]) -> np.ndarray:
        return np.concatenate([np.array(self.encode(text), np.int32) for text in texts])


def _all(found: Sequence[Work]) -> list[str]:
    return [text for work in found for text in work.texts]


def run_cell(subject: Subject, attack: str, setting: Mapping[str, Any], run: int) -> Recovery:
    """One attack at one setting; the run draws the key, the split and where the traffic begins."""
    if "dtype" in setting:
        texts = subject.texts("cross-domain", run)
        return attack_deployed(subject.path, texts.victim, texts.attacker, attack, setting, run)
    if "domain" in setting:
        return _on_traffic(subject, attack, setting, run)
    return _on_weights(subject, attack, setting, run)


def _on_weights(subject: Subject, attack: str, setting: Mapping[str, Any], run: int) -> Recovery:
    rng = np.random.default_rng([run, 1])
    public, head = subject.embedding, subject.embedding * subject.gain
    truth, rotation = rng.permutation(subject.vocab), _orthogonal(rng, public.shape[1])
    moved = rng.standard_normal(public.shape, dtype=np.float32)
    moved *= setting["noise"] * np.linalg.norm(public) / np.linalg.norm(moved)
    private = public + moved
    deployed, deployed_head = (_bf16((table @ rotation)[truth]) for table in (private, private * subject.gain))
    clock, held_out = Clock(), None
    if attack == "known-pairs-weights":
        wire = rng.permutation(subject.vocab)[: setting["told"]]
        found = with_weights(public, deployed, pairs_of(wire, truth[wire]))
        held_out = ~np.isin(np.arange(subject.vocab), wire)
    else:
        found = align(public, deployed, (head, deployed_head) if setting["start"] == "invariants" else None)
    cost = clock.cost(public, deployed)
    details = {
        "matched": list(found.matched),
        "rotation_error": float(np.linalg.norm(found.rotation - rotation) / np.linalg.norm(rotation)),
    }
    return score_map(attack, found.token_map, truth, cost, held_out=held_out, details=details)


def _on_traffic(subject: Subject, attack: str, setting: Mapping[str, Any], run: int) -> Recovery:
    texts, rng = subject.texts(setting["domain"], run), np.random.default_rng([run, 2])
    truth = rng.permutation(subject.vocab)
    count = min(setting["tokens"], len(texts.victim))
    start = rng.integers(len(texts.victim) - count + 1)
    ids = np.argsort(truth)[texts.victim[start : start + count]]
    clock, held_out = Clock(), None
    wire, known = traffic(ids, subject.vocab), traffic(texts.attacker, subject.vocab)
    if attack == "known-pairs":
        told = pairs_of(ids[: setting["told"]], truth[ids[: setting["told"]]])
        found = with_traffic(wire, known, told)
        held_out = ~np.isin(np.arange(subject.vocab), told.wire)
    else:
        found = (bigram if attack == "bigram" else by_rank)(wire, known)
    cost = clock.cost(ids, texts.attacker, tokens=count)
    top = wire.ranked[:1000]
    details = {
        "attacker_tokens": len(texts.attacker),
        "top_types": float((found == truth)[top].mean()),
        "top_coverage": float(wire.counts[top].sum() / wire.tokens),
    }
    return score_map(attack, found, truth, cost, wire.counts, held_out, details)


def _orthogonal(rng: np.random.Generator, dim: int) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return (q * np.sign(np.diag(r))).astype(np.float32)


def _bf16(values: np.ndarray) -> np.ndarray:
    """Rounded as the artefact stores it."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
