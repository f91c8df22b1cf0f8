"""One party: an SPU runtime of its own in a process of its own, which only ever holds its own shares."""

from __future__ import annotations

import os
import re
import resource
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import spu
from spu import libspu

from headrace.privacy.mpc import wire
from headrace.privacy.mpc.worker.shares import content, packed, unpacked

LINK = re.compile(r"Link details: total send bytes (\d+), recv bytes (\d+), send actions (\d+), recv actions (\d+)")
KERNEL = re.compile(r"- (\S+), executed (\d+) times, .*?send bytes (\d+) recv bytes \d+, send actions (\d+)")
PROTOCOLS = {"aby3": spu.ProtocolKind.ABY3, "semi2k": spu.ProtocolKind.SEMI2K}


def serve(rank: int, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Joins the others and does what the dealer asks until the pipe ends."""
    log = _log_of_this_process()
    setup, _ = wire.receive(requests)
    try:
        party = Party(rank, setup, log)
    except RuntimeError as error:
        wire.send(answers, {"error": sentence(error)})
        return
    wire.send(answers, {"ready": os.getpid()})
    try:
        while True:
            request, arrays = wire.receive(requests)
            told, sent = party.do(request.pop("verb"), request, arrays)
            wire.send(answers, told, sent)
    except EOFError:
        return


def _log_of_this_process() -> IO[bytes]:
    """SPU prints its statistics: from here on into a nameless file, where they are read after each run."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    return log


class Party:
    """`shares`: what it was given since its view was last asked for, where the setup records views."""

    def __init__(self, rank: int, setup: dict[str, Any], log: IO[bytes]) -> None:
        description = libspu.link.Desc()
        description.recv_timeout_ms = 1000 * setup["timeout"]
        for other, address in enumerate(setup["addresses"]):
            description.add_party(f"party{other}", address)
        self._runtime = spu.Runtime(libspu.link.create_brpc(description, rank), configuration(setup))
        self._record, self._log, self._read = setup["record"], log, 0
        self.shares: list[bytes] = []
        self._verbs: dict[str, Callable[..., Any]] = {
            "set": self.set, "run": self.run, "get": self.get, "drop": self.drop, "view": self.view,
        }  # fmt: skip

    def do(self, verb: str, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
        """A message and arrays to answer with; what SPU throws is told, and ends nothing."""
        try:
            return self._verbs[verb](arrays=arrays, **request)
        except Exception as error:  # whatever it is, the dealer is told
            return {"error": sentence(error)}, {}

    def set(self, name: str, arrays: dict[str, np.ndarray]) -> Any:
        share = unpacked(arrays)
        if self._record:
            self.shares.append(content(share))
        self._runtime.set_var(name, share)
        return {}, {}

    def get(self, name: str, arrays: dict[str, np.ndarray]) -> Any:
        return {}, packed(self._runtime.get_var(name))

    def drop(self, names: list[str], arrays: dict[str, np.ndarray]) -> Any:
        for name in names:
            self._runtime.del_var(name)
        return {}, {}

    def run(self, inputs: list[str], output: str, arrays: dict[str, np.ndarray]) -> Any:
        """Runs a program and tells what its own link and operations counted."""
        code = arrays["code"].tobytes()
        began = time.perf_counter()
        self._runtime.run(spu.Executable(name=output, input_names=inputs, output_names=[output], code=code))
        return self._counted() | {"seconds": time.perf_counter() - began}, {}

    def view(self, arrays: dict[str, np.ndarray]) -> Any:
        held, self.shares = self.shares, []
        return {}, {str(i): np.frombuffer(share, np.uint8) for i, share in enumerate(held)}

    def _counted(self) -> dict[str, Any]:
        size = os.fstat(self._log.fileno()).st_size
        fresh = os.pread(self._log.fileno(), size - self._read, self._read).decode("utf-8", "replace")
        self._read = size
        link = LINK.findall(fresh)[-1]
        kernels = {name: [int(n), int(sent), int(times)] for name, n, sent, times in KERNEL.findall(fresh)}
        return {"bytes": int(link[0]), "messages": int(link[2]), "operations": kernels, "peak": peak_memory()}


def peak_memory() -> int:
    """Bytes that this process has held at its most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def sentence(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def configuration(setup: dict[str, Any]) -> Any:
    """The runtime's settings: a ring of 64 bits, fixed point, and its own statistics switched on."""
    config = spu.RuntimeConfig(protocol=PROTOCOLS[setup["protocol"]], field=spu.FieldType.FM64)
    config.fxp_fraction_bits = setup["fraction_bits"]
    config.enable_pphlo_profile = True
    config.enable_hal_profile = setup["kernels"]
    config.max_concurrency = setup["threads"]
    return config
