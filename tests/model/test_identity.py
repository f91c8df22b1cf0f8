"""The identity of model files follows their contents, not their path."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from headrace.model.identity import identity
from headrace.model.tensor import Tensor

SIZE = 5 * 2**20
TENSORS = {"a": Tensor.of("a", np.zeros((2, 3))), "b": Tensor.of("b", np.zeros(4))}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(np.random.default_rng(0).bytes(SIZE))
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    return path


def test_a_moved_copy_is_the_same_model(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "renamed.gguf"
    copy.parent.mkdir()
    shutil.copy2(file, copy)
    assert identity([file], TENSORS) == identity([copy], dict(reversed(TENSORS.items()))) is not None


@pytest.mark.parametrize("at", (0, 2**20 - 1, SIZE - 2**20, SIZE - 1))
def test_a_changed_end_is_another_model_even_at_the_same_time(file: Path, at: int) -> None:
    before, stat = identity([file], TENSORS), file.stat()
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ 1]))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert identity([file], TENSORS) != before


def test_time_size_shards_and_tensors_count(file: Path, tmp_path: Path) -> None:
    found = {identity([file], TENSORS), identity([file, file], TENSORS), identity([file], {"a": TENSORS["a"]})}
    found.add(identity([file], TENSORS | {"b": Tensor.of("b", np.zeros(5))}))
    found.add(identity([file], TENSORS | {"b": Tensor("b", (4,), "f16", lambda: np.zeros(4))}))
    os.utime(file, ns=(0, 1_700_000_000_123_456_790))
    found.add(identity([file], TENSORS))
    assert len(found) == 6 and None not in found


def test_a_file_that_is_gone_has_none(tmp_path: Path) -> None:
    assert identity([tmp_path / "gone"], TENSORS) is None
