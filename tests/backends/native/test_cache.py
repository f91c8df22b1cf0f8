"""The cache of packed weights: written once, mapped afterwards, never believed when it is not what it should be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from headrace.backends.native import cache
from headrace.backends.native.cache import NativeWeights, WeightPlan, packed_folder
from headrace.backends.native.weights import WeightsOption, pack
from headrace.model.catalogue import Progress
from headrace.model.loading import ResidentStore
from headrace.model.tensor import Tensor
from headrace.spec.errors import PlanRejected
from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import Mlp, Norm
from headrace.spec.program import Embed, Expert, Head, Matmul, Normalize, Operation, Route

MLP = Mlp(32, experts=3, top_k=2)
OPERATIONS: tuple[Operation, ...] = (
    Embed("x", "embed.weight"),
    Normalize("x", "h", "norm.weight", None, Norm()),
    Matmul("h", "q", "q.weight", "q.bias"),
    Route("h", "routes", "router", MLP),
    Expert("h", "routes", "o", "gate", "up", "down", MLP),
    Head("x", "logits", "head.weight", None),
)
SHAPES = {
    "embed.weight": (50, 64), "norm.weight": (64,), "q.weight": (33, 64), "q.bias": (33,), "router": (3, 64),
    "gate": (3, 32, 64), "up": (3, 32, 64), "down": (3, 64, 32), "head.weight": (50, 64),
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "SMALLEST", 0)
    return tmp_path / "packed"


def load_weights(
    store: WeightStore,
    operations: Sequence[Operation],
    weights: WeightsOption,
    ledger: Ledger,
    progress: Progress | None = None,
) -> NativeWeights:
    """As the executor does it: what stays in memory is reserved, then everything is read."""
    plan = WeightPlan(store, operations, weights)
    held = ledger.reserve_all(plan.wanted)
    try:
        loaded = plan.load(ledger, progress)
    except BaseException:
        for item in held:
            ledger.release(item)
        raise
    loaded._held += held
    return loaded


class Source:
    """Random weights that count how often a matrix is read; q is stored as Q8_0."""

    def __init__(self, identity: str | None = "1" * 64) -> None:
        self.reads = 0
        rng = np.random.default_rng(0)
        tensors = {}
        for name, shape in SHAPES.items():
            values = rng.standard_normal(shape).astype(np.float32)
            tensors[name] = Tensor(name, shape, "f32", self.load(values) if len(shape) > 1 else lambda v=values: v)
        blocks = rng.integers(0, 100, (33, 2, 34), np.uint8)
        tensors["q.weight"] = Tensor("q.weight", (33, 64), "Q8_0", self.load(blocks.reshape(33, 68)))
        self.store = ResidentStore(tensors, identity)

    def load(self, values: np.ndarray) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            self.reads += 1
            return values

        return read

    def start(self, weights: WeightsOption = "auto", ledger: Ledger | None = None) -> NativeWeights:
        return load_weights(self.store, OPERATIONS, weights, ledger or Ledger())


def assert_right(loaded: NativeWeights, source: Source, weights: WeightsOption = "auto") -> None:
    tensors = source.store.weights
    assert loaded.matrices.keys() | loaded.vectors.keys() == SHAPES.keys()
    for name, matrices in loaded.matrices.items():
        wanted = pack(tensors[name], "auto" if name in ("router", "embed.weight") else weights)
        assert len(matrices) == len(wanted) and matrices[0].data.ctypes.data % 64 == 0
        for ours, theirs in zip(matrices, wanted, strict=True):
            assert ours.format == theirs.format and (ours.data == theirs.data).all(), name
    for name, vector in loaded.vectors.items():
        assert vector.dtype == np.float32 and (vector == tensors[name].numpy()).all()


def files(folder: Path) -> Sequence[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("weights", ("auto", "int8", "int4", "bf16"))
def test_the_second_start_reads_no_matrix(weights: WeightsOption, folder: Path) -> None:
    first, second = Source(), Source()
    one = first.start(weights)
    assert one.mapped and first.reads and len(files(folder)) == 1
    assert_right(one, first, weights)
    two = second.start(weights)
    assert two.mapped and second.reads == 0
    assert_right(two, first, weights)
    assert not two.matrices["gate"][2].data.flags.writeable


def test_what_decides_the_bytes_decides_the_file(folder: Path) -> None:
    for weights in ("auto", "int8", "int8", "int4"):
        Source().start(weights)
    assert len(files(folder)) == 3
    other = Source("2" * 64)
    other.start()
    assert other.reads and len(files(folder)) == 4


@pytest.mark.parametrize("damage", ("cut", "longer", "header", "empty", "stale", "folder"))
def test_a_damaged_file_is_written_anew(damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Source().start().release()
    (path,) = files(folder)
    good = path.read_bytes()
    if damage == "stale":
        monkeypatch.setattr("headrace.__version__", "another")
    elif damage == "folder":
        path.rename(folder / "elsewhere")
        path.mkdir()
    else:
        broken = {
            "cut": good[:-1],
            "longer": good + b"\0",
            "header": good.replace(b"router", b"rooter", 1),
            "empty": b"",
        }
        path.write_bytes(broken.get(damage, b""))
    source = Source()
    loaded = source.start()
    assert source.reads and loaded.mapped == (damage != "folder")
    assert_right(loaded, source)
    if damage not in ("stale", "folder"):
        assert path.read_bytes() == good


def test_a_map_outlives_its_file(folder: Path) -> None:
    source = Source()
    loaded = source.start()
    files(folder)[0].unlink()
    Source().start()
    assert_right(loaded, source)


@pytest.mark.parametrize("why", ("no identity", "folder is a file", "small"))
def test_without_a_cache_weights_are_packed_in_memory(why: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(None if why == "no identity" else "1" * 64)
    if why == "folder is a file":
        folder.write_text("in the way")
    if why == "small":
        monkeypatch.setattr(cache, "SMALLEST", 2**20)
    ledger = Ledger()
    loaded = source.start(ledger=ledger)
    assert not loaded.mapped and not folder.is_dir()
    assert_right(loaded, source)
    held = {item.what: item.bytes for item in ledger.items}
    packed = sum(matrix.nbytes for matrices in loaded.matrices.values() for matrix in matrices)
    assert packed <= held["packed weights"] <= packed + 64 * len(SHAPES) * 3
    assert held.keys() == {"packed weights", "norms and biases"} and not ledger.mapped


def test_the_disk_may_be_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    source, ledger = Source(), Ledger()
    loaded = source.start(ledger=ledger)
    assert not loaded.mapped and not files(folder)
    assert_right(loaded, source)


def test_the_ledger_gets_everything_back() -> None:
    for identity in ("1" * 64, None):
        ledger = Ledger()
        loaded = Source(identity).start(ledger=ledger)
        assert ledger.total and bool(ledger.mapped) == loaded.mapped
        loaded.release()
        loaded.release()
        assert not ledger.items and not ledger.mapped


def test_a_plan_reads_nothing_and_knows_what_loading_takes() -> None:
    source = Source()
    first = WeightPlan(source.store, OPERATIONS, "auto")
    assert source.reads == 0 and first.passing > 0
    loaded = first.load(Ledger())
    again = WeightPlan(source.store, OPERATIONS, "auto")
    assert again.passing == 0 and again.wanted == first.wanted
    for name, matrices in loaded.matrices.items():
        assert [matrix.nbytes for matrix in matrices] == [layout.nbytes for layout in first.layouts[name]]


def test_too_little_memory_is_refused_before_a_matrix_is_read() -> None:
    source, ledger = Source(None), Ledger(limit=10_000)
    with pytest.raises(PlanRejected):
        source.start(ledger=ledger)
    assert not source.reads and not ledger.items


def test_a_disk_that_turns_out_full_may_leave_too_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    ledger = Ledger(limit=10_000)
    with pytest.raises(PlanRejected):
        Source().start(ledger=ledger)
    assert not ledger.items and not ledger.mapped and not files(folder)


def test_an_interrupted_start_leaves_nothing(folder: Path) -> None:
    source, ledger = Source(), Ledger()

    def interrupt() -> np.ndarray:
        raise KeyboardInterrupt

    source.store.weights["down"] = Tensor("down", SHAPES["down"], "f32", interrupt)
    with pytest.raises(KeyboardInterrupt):
        source.start(ledger=ledger)
    assert not files(folder) and not ledger.items


def test_older_panels_and_dead_leftovers_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    Source().start()
    (old,) = files(folder)
    leftover, fresh = folder / ".pack-1-dead", folder / ".pack-2-alive"
    leftover.write_bytes(b"")
    fresh.write_bytes(b"")
    os.utime(leftover, (0, 0))
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    Source().start()
    assert not old.exists() and not leftover.exists() and fresh.exists()
    newer = [path for path in files(folder) if path.suffix == ".panels"]
    monkeypatch.setattr(cache, "VERSION", cache.VERSION - 1)
    assert Source().start().mapped
    assert newer[0].exists() and old.exists()


def test_starts_at_the_same_time_do_no_harm(folder: Path) -> None:
    sources = [Source() for _ in range(6)]
    gate, loaded = threading.Barrier(6), dict[int, NativeWeights]()

    def start(index: int) -> None:
        gate.wait()
        loaded[index] = sources[index].start()

    threads = [threading.Thread(target=start, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, source in enumerate(sources):
        assert loaded[index].mapped
        assert_right(loaded[index], source)
    assert len(files(folder)) == 1


def test_rounded_types_and_progress_are_told() -> None:
    source = Source()
    blocks = np.zeros((33, 2, 18), np.uint8)  # IQ4_NL, whose values are no straight line
    blocks[:, :, :2] = np.float16([0.5]).view(np.uint8)
    source.store.weights["q.weight"] = Tensor("q.weight", (33, 64), "IQ4_NL", lambda: blocks.reshape(33, 36))
    told: list[tuple[str, int, int]] = []
    loaded = load_weights(source.store, OPERATIONS, "auto", Ledger(), lambda *step: told.append(step))
    assert loaded.rounded == {"IQ4_NL": 1}
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told}) and told[-1][1] <= told[-1][2]
    again = load_weights(source.store, OPERATIONS, "auto", Ledger(), lambda *step: told.append(step))
    assert again.rounded == {"IQ4_NL": 1} and len(told) == len(loaded.matrices)


def test_a_tied_table_is_packed_once() -> None:
    source = Source()
    tied = (OPERATIONS[0], Head("x", "logits", "embed.weight", None))
    loaded = load_weights(source.store, tied, "int8", Ledger())
    assert loaded.matrices.keys() == {"embed.weight"} and loaded.matrices["embed.weight"][0].format == "codes8"


def test_a_real_file(smollm2: Path) -> None:
    """Every matrix of the default model as the file has it, mapped at the second start."""
    from headrace.model.loading import load_model
    from headrace.spec.program import compile_program

    for mapped_before in (False, True):
        model = load_model(smollm2, Ledger())
        assert (packed_folder().is_dir() and len(files(packed_folder())) == 1) == mapped_before
        loaded = load_weights(model.weights, compile_program(model.spec).operations, "auto", Ledger())
        assert loaded.mapped and not loaded.rounded
    assert isinstance(model.weights, ResidentStore)
    for name in ("layers.0.attn.q.weight", "layers.7.mlp.down.weight", "layers.29.attn.v.weight"):
        assert (loaded.matrices[name][0].decoded() == model.weights.weights[name].numpy()).all()
