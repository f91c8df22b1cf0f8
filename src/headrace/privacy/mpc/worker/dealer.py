"""The client's and the model owner's side: makes shares, hands each party its own, and puts answers together.

It starts one process a party. Parties talk to one another over loopback ports and never see what the dealer sees.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
import spu

from headrace.privacy.mpc import wire
from headrace.privacy.mpc.worker.party import configuration, peak_memory, sentence
from headrace.privacy.mpc.worker.programs import Programs
from headrace.privacy.mpc.worker.relay import Relay
from headrace.privacy.mpc.worker.shares import laid_open, packed, unpacked

ENTRY = Path(__file__).with_name("__main__.py")
PARTIES = {"aby3": 3, "semi2k": 2}


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answers requests until the pipe ends; each group of parties ends with the next one or with the dealer."""
    dealer = Dealer()
    try:
        wire.send(answers, {"ready": spu.__version__})
        while True:
            request, arrays = wire.receive(requests)
            try:
                told, sent = dealer.do(request.pop("verb"), request, arrays)
            except Exception as error:  # whatever it is, the other process is told
                told, sent = {"error": sentence(error)}, {}
            wire.send(answers, told, sent)
    except (EOFError, BrokenPipeError):
        return
    finally:
        dealer.close()


class Dealer:
    """Programs outlive a group of parties, shares do not."""

    def __init__(self) -> None:
        self._programs = Programs()
        self._group: Group | None = None
        self._verbs: dict[str, Callable[..., Any]] = {
            "open": self.open, "share": self.share, "run": self.run, "reveal": self.reveal, "forget": self.forget,
            "views": self.views,
        }  # fmt: skip

    def do(self, verb: str, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
        return self._verbs[verb](arrays=arrays, **request)

    @property
    def group(self) -> Group:
        if self._group is None:
            raise RuntimeError("no parties have been started")
        return self._group

    def open(self, setup: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
        self.close()
        self._group = group = Group(setup)
        return {"pids": group.pids}, {}

    def share(self, arrays: dict[str, np.ndarray]) -> Any:
        for name, array in arrays.items():
            self.group.share(name, array)
        return {}, {}

    def run(self, program: dict[str, Any], inputs: list[str], output: str, arrays: dict[str, np.ndarray]) -> Any:
        group = self.group
        shapes = [group.shapes[name] for name in inputs]
        code, shape = self._programs.compiled(program, shapes)
        before = group.relay.rounds if group.relay else 0
        told = [told for told, _ in group.ask("run", {"code": code}, inputs=inputs, output=output)]
        group.shapes[output] = shape
        rounds = group.relay.rounds - before if group.relay else 0
        return {"parties": told, "rounds": rounds, "peak": peak_memory()}, {}

    def reveal(self, names: list[str], arrays: dict[str, np.ndarray]) -> Any:
        return {}, {name: self.group.reveal(name) for name in names}

    def forget(self, names: list[str], arrays: dict[str, np.ndarray]) -> Any:
        self.group.ask("drop", names=names)
        for name in names:
            del self.group.shapes[name]
        return {}, {}

    def views(self, arrays: dict[str, np.ndarray]) -> Any:
        return {}, self.group.views()

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None


class Group:
    """The parties of one computation. `shapes`: of every name that they hold."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._leak = setup["leak"]
        count = PARTIES[setup["protocol"]]
        self._io = spu.Io(count, configuration(setup))
        self.shapes: dict[str, tuple[int, ...]] = {}
        real = free_addresses(count)
        self.relay = Relay(real, setup["lockstep"]) if setup["record"] else None
        self._parties = [start_party(rank) for rank in range(count)]
        if self.relay:
            self.relay.parties = [party.pid for party in self._parties]
        try:
            self.pids = self._join(setup, real)
        except BaseException:
            self.close()
            raise

    def _join(self, setup: dict[str, Any], real: list[str]) -> list[int]:
        """Tells every party where the others are; their process ids."""
        for rank, party in enumerate(self._parties):
            seen = self.relay.addresses_for(rank, real) if self.relay else real
            wire.send(party.stdin, setup | {"addresses": seen})  # type: ignore[arg-type]
        return [told["ready"] for told, _ in self._answers()]

    def share(self, name: str, array: np.ndarray) -> None:
        """Splits an array and gives every party its part; nothing else of it leaves the dealer."""
        shares = self._io.make_shares(array, spu.Visibility.VIS_SECRET)
        if self._leak:
            shares = laid_open(shares, array)
        for party, share in zip(self._parties, shares, strict=True):
            wire.send(party.stdin, {"verb": "set", "name": name}, packed(share))  # type: ignore[arg-type]
        self._answers()
        self.shapes[name] = array.shape

    def reveal(self, name: str) -> np.ndarray:
        held = [unpacked(arrays) for _, arrays in self.ask("get", name=name)]
        found: np.ndarray = self._io.reconstruct(held)
        return found

    def views(self) -> dict[str, np.ndarray]:
        """By party: the shares it was given and the values it was sent, since it was last asked."""
        found: dict[str, np.ndarray] = {}
        for rank, (_, shares) in enumerate(self.ask("view")):
            found |= {f"{rank}/share/{i}": share for i, share in shares.items()}
            values = self.relay.messages(rank) if self.relay else []
            found |= {f"{rank}/message/{i}": np.frombuffer(value, np.uint8) for i, value in enumerate(values)}
        return found

    def ask(self, verb: str, arrays: dict[str, np.ndarray] | None = None, **request: Any) -> list[Any]:
        with self.relay.still() if self.relay else nullcontext():
            for party in self._parties:
                wire.send(party.stdin, {"verb": verb} | request, arrays)  # type: ignore[arg-type]
        return self._answers()

    def _answers(self) -> list[Any]:
        answers = [wire.receive(party.stdout) for party in self._parties]  # type: ignore[arg-type]
        for told, _ in answers:
            if "error" in told:
                raise RuntimeError(told["error"])
        return answers

    def close(self) -> None:
        for party in self._parties:
            party.kill()  # a link that is left waiting would hold its process for minutes
            party.wait()
        if self.relay:
            self.relay.close()


def start_party(rank: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", str(ENTRY), "party", str(rank)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def free_addresses(count: int) -> list[str]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{server.getsockname()[1]}" for server in held]
    for server in held:
        server.close()
    return found
