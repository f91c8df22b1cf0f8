"""A model's weights for the native executor, packed at the first start and mapped from disk at the next ones.

A cache file is a header, filled up to whole pages of 4096 bytes, and the matrices of `weights.py` at multiples
of 64 bytes. The header is text that follows from the model's identity, this program's version and the tensors'
layouts, so that a file is right if it starts with the very header that would be written and has its length.
It holds for every instruction set: all kernels read the same panels.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
import shutil
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
from headrace.spec.ledger import Ledger, Reservation, Tag
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
    """What a program reads.

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
        """Forgets the arrays and the file map; a second call does nothing. Nothing may read them any more."""
        self.matrices, self.vectors = {}, {}
        while self._held:
            self._ledger.release(self._held.pop())


class WeightPlan:
    """How a program's weights will be held, decided before one of them is read.

    Float matrices of products and experts are stored as `weights` says; routers, and tables that no product
    reads, stay float. `layouts`: of the matrices by canonical name. `vectors`: room for all others, not filled.
    Matrices come from the cache where the store has an `identity` and the cache has their file, or can keep it.
    """

    def __init__(self, store: WeightStore, operations: Sequence[Operation], weights: WeightsOption) -> None:
        leased = store.lease(operations)
        options = _options(operations, weights)
        self._places = _Places.of({name: (leased[name], option) for name, option in options.items()})
        self._rest = {name: tensor for name, tensor in leased.items() if name not in options}
        self.layouts = {name: [layout for layout, _ in places] for name, places in self._places.of_name.items()}
        self.vectors = {name: np.empty(tensor.shape, np.float32) for name, tensor in self._rest.items()}
        self._file, self._data = _cached(self._places, getattr(store, "identity", None))

    @property
    def wanted(self) -> list[tuple[Tag, str, int]]:
        """Bytes that stay, for the ledger: reserve them before `load`."""
        packed = 0 if self._file else self._places.nbytes
        vectors = sum(vector.nbytes for vector in self.vectors.values())
        return [("weights", "norms and biases", vectors), ("weights", "packed weights", packed)]

    @property
    def passing(self) -> int:
        """Bytes that `load` takes besides, until it is done."""
        if self._data is not None:
            return 0
        return _WORKING + max((t.nbytes for t, _ in self._places.tensors.values() if not t.mapped), default=0)

    def load(self, ledger: Ledger, progress: Progress | None = None) -> NativeWeights:
        """Reads the weights, once; `progress(what, done bytes, total bytes)` is called while matrices are packed.

        A cache file that cannot be kept after all, on a disk that is full, is packed into memory, and the ledger
        asked for it only then. Raises PlanRejected where it has no room and UnsupportedModel for a type that
        nothing here can decode.
        """
        held: list[Reservation] = []
        try:
            for name, tensor in self._rest.items():
                self.vectors[name][...] = tensor.numpy()
            data, mapped = self._panels(ledger, held, progress or _silent)
        except BaseException:
            NativeWeights({}, {}, {}, False, ledger, held).release()
            raise
        rounded = dict(Counter(tensor.kind for tensor, _ in self._places.tensors.values() if is_rounded(tensor)))
        return NativeWeights(self._places.matrices(data), self.vectors, rounded, mapped, ledger, held)

    def _panels(self, ledger: Ledger, held: list[Reservation], progress: Progress) -> tuple[np.ndarray, bool]:
        """The matrices' bytes, and whether they are a file map; what the plan did not name is added to `held`."""
        data = self._data
        if self._file is not None:
            data = self._file.write(progress) if data is None else data
            if data is not None:
                held.append(ledger.map_file(self._file.path.name, self._file.size))
                return data, True
            held.append(ledger.reserve("weights", "packed weights", self._places.nbytes))
        return self._places.packed(progress), False


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
class _Places:
    """Where each matrix stands among `nbytes` bytes."""

    tensors: dict[str, tuple[Tensor, WeightsOption]]
    of_name: dict[str, list[tuple[Layout, int]]]
    nbytes: int

    @classmethod
    def of(cls, tensors: dict[str, tuple[Tensor, WeightsOption]]) -> _Places:
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
            for name, places in self.of_name.items()
        }

    def forms(self) -> str:
        """What is stored, and how."""
        entries = [
            (name, self.tensors[name][0].kind, len(places), asdict(places[0][0]))
            for name, places in self.of_name.items()
            if places
        ]
        return json.dumps(entries)

    def fill(self, write: Callable[[int, np.ndarray], None], progress: Progress) -> None:
        """Packs every matrix and hands its parts to `write(place, bytes)`."""
        for name, (tensor, option) in self.tensors.items():
            places = self.of_name[name]
            for number, at, part in panels(tensor, option):
                write(places[number][1] + at, part)
            progress("packing weights", places[-1][1] + places[-1][0].nbytes, self.nbytes)

    def packed(self, progress: Progress) -> np.ndarray:
        """The bytes, in memory."""
        data = aligned_bytes(self.nbytes)

        def copy(at: int, part: np.ndarray) -> None:
            data[at : at + len(part)] = part

        self.fill(copy, progress)
        return data


def _cached(places: _Places, identity: str | None) -> tuple[_CacheFile | None, np.ndarray | None]:
    """The file of the matrices, if there is one or room for it, and its bytes, if there is one."""
    if identity is None or places.nbytes < SMALLEST:
        return None, None
    file = _CacheFile(places, identity)
    data = file.map()
    return (file if data is not None or file.has_room() else None), data


class _CacheFile:
    """The file of a plan's matrices, named by the model's identity, the matrices' forms, and VERSION."""

    def __init__(self, places: _Places, identity: str) -> None:
        forms = places.forms()
        head = json.dumps({"identity": identity, "version": VERSION, "headrace": headrace.__version__})
        text = _MAGIC + f"{head}\n{forms}\n".encode()
        self._places, self._header = places, text.ljust(_up(len(text), _PAGE))
        self._stem = f"{identity[:24]}-{hashlib.sha256(forms.encode()).hexdigest()[:8]}"
        self.path = packed_folder() / f"{self._stem}-v{VERSION}.panels"
        self.size = len(self._header) + places.nbytes

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

    def has_room(self) -> bool:
        """Whether the file can probably be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
        except OSError:
            return False
        return free > self.size and os.access(self.path.parent, os.W_OK | os.X_OK) and not self.path.is_dir()

    def write(self, progress: Progress) -> np.ndarray | None:
        """Packs into a file beside the final one, renames it and maps it; None where that cannot be done.

        Of two processes that do so at once the later one replaces a file by its equal, which harms neither:
        a map keeps the file it was made of.
        """
        folder = self.path.parent
        part = folder / f".pack-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            _sweep(folder)
            self._write(part, progress)
            part.replace(self.path)
            self._remove_older()
        except OSError:
            return None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return self.map()

    def _write(self, path: Path, progress: Progress) -> None:
        with path.open("xb") as file:
            file.write(self._header)

            def put(at: int, part: np.ndarray) -> None:
                file.seek(len(self._header) + at)
                file.write(part.data)

            self._places.fill(put, progress)
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
