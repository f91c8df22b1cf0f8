"""A model's weights for the native executor, packed at the first start and mapped from disk at the next ones.

A cache file is a header, filled up to whole pages of 4096 bytes, and the matrices of `weights.py` at multiples
of 64 bytes. The header is text that follows from the model's identity, this program's version and the tensors'
layouts, so that a file is right if it starts with the very header that would be written and has its length.
It holds for every instruction set: all kernels read the same panels.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import headrace
from headrace.backends.native.weights import (
    ALIGNMENT,
    CHUNK,
    Layout,
    PackedMatrix,
    WeightsOption,
    aligned_bytes,
    count,
    is_rounded,
    layout_of,
    panels,
)
from headrace.model.catalogue import Progress, cache_folder
from headrace.model.tensor import Tensor
from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger, Reservation
from headrace.spec.program import Embed, Expert, Head, Matmul, Operation, Route

VERSION = 1
"""Of the panels. Raise it when their bytes change for the same tensors."""
SMALLEST = 2**24
"""Bytes from which a file is kept: less is packed in the time of a blink, and tiny models come in numbers."""
_MAGIC = b"headrace panels\n"
_PAGE = 4096
_WORKING = 32 * CHUNK
"""Bytes that packing a chunk takes beside its result."""


@dataclass
class NativeWeights:
    """What a program reads, under the ledger until `release`.

    `matrices` by canonical name: those of products, routers, experts (one matrix each) and embedding tables.
    `vectors`: all others as float32. `rounded`: ggml type -> tensors of it that were rounded to the codes of
    Q8_0. `mapped`: the matrices are views of a read-only file map, else of memory of their own.
    """

    matrices: dict[str, list[PackedMatrix]]
    vectors: dict[str, np.ndarray]
    rounded: dict[str, int]
    mapped: bool
    _ledger: Ledger
    _held: list[Reservation] = field(default_factory=list)

    def release(self) -> None:
        """Gives the bytes back to the ledger; a second call does nothing. Nothing may read the arrays any more."""
        self.matrices, self.vectors = {}, {}
        while self._held:
            self._ledger.release(self._held.pop())


def load_weights(
    store: WeightStore,
    operations: Sequence[Operation],
    weights: WeightsOption,
    ledger: Ledger,
    progress: Progress | None = None,
) -> NativeWeights:
    """The weights of a program, from the cache where the store has an `identity` and the cache has its file.

    Float matrices of products and experts are stored as `weights` says; routers, and tables that no product
    reads, stay float. `progress(what, done bytes, total bytes)` is called while matrices are packed. Where the
    cache folder cannot be written they are packed in memory. Raises PlanRejected where the ledger has no room
    and UnsupportedModel for a type that nothing here can decode.
    """
    leased = store.lease(operations)
    options = _options(operations, weights)
    plan = _Plan.of({name: (leased[name], option) for name, option in options.items()})
    rest = {name: tensor for name, tensor in leased.items() if name not in options}
    held = [ledger.reserve("weights", "norms and biases", sum(4 * math.prod(t.shape) for t in rest.values()))]
    try:
        data, mapped = _panels(plan, getattr(store, "identity", None), ledger, held, progress or _silent)
        vectors = {name: np.array(tensor.numpy(), np.float32) for name, tensor in rest.items()}
    except BaseException:
        NativeWeights({}, {}, {}, False, ledger, held).release()
        raise
    rounded = dict(Counter(tensor.kind for tensor, _ in plan.tensors.values() if is_rounded(tensor)))
    return NativeWeights(plan.matrices(data), vectors, rounded, mapped, ledger, held)


def packed_folder() -> Path:
    return cache_folder() / "packed"


def _silent(what: str, done: int, total: int) -> None:
    return None


def _options(operations: Sequence[Operation], weights: WeightsOption) -> dict[str, WeightsOption]:
    """Names of the matrices, and how each is stored if it is float."""
    found: dict[str, WeightsOption] = {}
    for op in operations:
        if isinstance(op, Embed):
            found.setdefault(op.table, "auto")
        elif isinstance(op, Matmul | Head):
            found[op.weight] = weights
        elif isinstance(op, Route):
            found[op.weight] = "auto"
        elif isinstance(op, Expert):
            found |= dict.fromkeys((op.gate, op.up, op.down), weights)
    return found


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where each matrix stands among `nbytes` bytes, decided before a weight is read."""

    tensors: dict[str, tuple[Tensor, WeightsOption]]
    places: dict[str, list[tuple[Layout, int]]]
    nbytes: int

    @classmethod
    def of(cls, tensors: dict[str, tuple[Tensor, WeightsOption]]) -> _Plan:
        places: dict[str, list[tuple[Layout, int]]] = {}
        end = 0
        for name, (tensor, option) in tensors.items():
            layout, places[name] = layout_of(tensor, option), []
            for _ in range(count(tensor)):
                places[name].append((layout, end))
                end = _up(end + layout.nbytes, ALIGNMENT)
        return cls(tensors, places, end)

    def matrices(self, data: np.ndarray) -> dict[str, list[PackedMatrix]]:
        return {
            name: [PackedMatrix.of(layout, data[at : at + layout.nbytes]) for layout, at in places]
            for name, places in self.places.items()
        }

    def forms(self) -> str:
        """What is stored, and how."""
        entries = [
            (name, self.tensors[name][0].kind, len(places), asdict(places[0][0]))
            for name, places in self.places.items()
            if places
        ]
        return json.dumps(entries)

    def fill(self, write: Callable[[int, np.ndarray], None], ledger: Ledger, progress: Progress) -> None:
        """Packs every matrix and hands its parts to `write(place, bytes)`."""
        copied = max((t.nbytes for t, _ in self.tensors.values() if not t.mapped), default=0)
        working = ledger.reserve("weights", "packing buffer", _WORKING + copied)
        try:
            for name, (tensor, option) in self.tensors.items():
                places = self.places[name]
                for number, at, part in panels(tensor, option):
                    write(places[number][1] + at, part)
                progress("packing weights", places[-1][1] + places[-1][0].nbytes, self.nbytes)
        finally:
            ledger.release(working)


def _panels(
    plan: _Plan, identity: str | None, ledger: Ledger, held: list[Reservation], progress: Progress
) -> tuple[np.ndarray, bool]:
    """The plan's bytes, and whether they are a file map; what they take is added to `held`."""
    if identity is not None and plan.nbytes >= SMALLEST:
        file = _CacheFile(plan, identity)
        data = file.map()
        if data is None:
            file.write(ledger, progress)
            data = file.map()
        if data is not None:
            held.append(ledger.map_file(file.path.name, file.size))
            return data, True
    held.append(ledger.reserve("weights", "packed weights", plan.nbytes))
    data = aligned_bytes(plan.nbytes)

    def copy(at: int, part: np.ndarray) -> None:
        data[at : at + len(part)] = part

    plan.fill(copy, ledger, progress)
    return data, False


class _CacheFile:
    """The file of a plan's matrices, named by the model's identity, the matrices' forms, and VERSION."""

    def __init__(self, plan: _Plan, identity: str) -> None:
        forms = plan.forms()
        head = json.dumps({"identity": identity, "version": VERSION, "headrace": headrace.__version__})
        text = _MAGIC + f"{head}\n{forms}\n".encode()
        self._plan, self._header = plan, text.ljust(_up(len(text), _PAGE))
        self._stem = f"{identity[:24]}-{hashlib.sha256(forms.encode()).hexdigest()[:8]}"
        self.path = packed_folder() / f"{self._stem}-v{VERSION}.panels"
        self.size = len(self._header) + plan.nbytes

    def map(self) -> np.ndarray | None:
        """The matrices' bytes; None where there is no file, or one that is foreign, stale or cut off."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != self.size or file.read(len(self._header)) != self._header:
                    return None
                view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:
            return None
        return np.frombuffer(view, np.uint8, offset=len(self._header))

    def write(self, ledger: Ledger, progress: Progress) -> None:
        """Packs into a file beside the final one and renames it; does nothing where that cannot be done.

        Of two processes that do so at once the later one replaces a file by its equal, which harms neither:
        a map keeps the file it was made of.
        """
        folder = self.path.parent
        part = folder / f".pack-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            self._write(part, ledger, progress)
            part.replace(self.path)
            self._remove_older()
        except OSError:
            return
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _write(self, path: Path, ledger: Ledger, progress: Progress) -> None:
        with path.open("xb") as file:
            file.write(self._header)

            def put(at: int, part: np.ndarray) -> None:
                file.seek(len(self._header) + at)
                file.write(part.data)

            self._plan.fill(put, ledger, progress)
            file.truncate(self.size)
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before the bytes do

    def _remove_older(self) -> None:
        """Files of the same matrices in panels of an older version."""
        for old in self.path.parent.glob(f"{self._stem}-v*.panels"):
            number = old.stem.rpartition("-v")[2]
            if number.isdecimal() and int(number) < VERSION:
                with suppress(OSError):
                    old.unlink()


def _sweep(folder: Path, older_than: float = 86_400.0) -> None:
    """Removes what processes that were killed a day ago or longer have left."""
    for stale in folder.glob(".pack-*"):
        with suppress(OSError):
            if time.time() - stale.stat().st_mtime > older_than:
                stale.unlink()


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
