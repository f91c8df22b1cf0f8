"""A computation on secret shares, from this process: it speaks to a worker, which deals shares to the parties."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from headrace.privacy.mpc import wire
from headrace.privacy.mpc.approximations import FRACTION_BITS
from headrace.privacy.mpc.errors import PartiesFailed
from headrace.privacy.mpc.view import View

Kind: TypeAlias = Literal["aby3", "semi2k"]
ENTRY = Path(__file__).parent / "worker" / "__main__.py"


@dataclass(frozen=True, slots=True)
class Setup:
    """How parties compute.

    `record`: what passes between them is kept, for `views`. `lockstep`: and let through in rounds, which are counted.
    `leak`: a mutant that gives the first party the numbers themselves. `kernels`: SPU's primitives are counted too.
    `timeout`: seconds a party waits for another. `threads` of each.
    """

    protocol: Kind = "aby3"
    fraction_bits: int = FRACTION_BITS
    record: bool = False
    lockstep: bool = False
    leak: bool = False
    kernels: bool = False
    timeout: int = 600
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Spent:
    """What programs cost, as SPU's own links counted: payload bytes and messages of all parties.

    `operations`: SPU's operation -> (times, bytes, messages). `rounds`: counted in lockstep only.
    `seconds`: the slowest party's. `peak`: bytes of memory of dealer and parties, each at its most.
    """

    bytes: int = 0
    messages: int = 0
    rounds: int = 0
    seconds: float = 0.0
    peak: int = 0
    operations: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.bytes + other.bytes,
            self.messages + other.messages,
            self.rounds + other.rounds,
            self.seconds + other.seconds,
            max(self.peak, other.peak),
            _summed([self.operations, other.operations]),
        )


class Session:
    """One worker with its parties. A context manager; everything ends with it.

    Raises PartiesFailed where the worker or a party stops.
    """

    def __init__(self, python: Path) -> None:
        self._python, command = python, [str(python), "-I", str(ENTRY), "dealer"]
        self._worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def open(self, setup: Setup) -> list[int]:
        """Starts the parties, in place of earlier ones; returns their process ids."""
        told, _ = self._ask("open", setup=asdict(setup))
        return list(told["pids"])

    def share(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Gives every party its share of float32 arrays, under their names."""
        self._ask("share", {name: np.asarray(array, np.float32) for name, array in arrays.items()})

    def run(self, program: Mapping[str, Any], inputs: Sequence[str], output: str) -> Spent:
        """Computes on what the parties hold; the result stays with them, under the name `output`."""
        told, _ = self._ask("run", program=program, inputs=list(inputs), output=output)
        parties = told["parties"]
        return Spent(
            sum(party["bytes"] for party in parties),
            sum(party["messages"] for party in parties),
            told["rounds"],
            max(party["seconds"] for party in parties),
            told["peak"] + sum(party["peak"] for party in parties),
            _summed([party["operations"] for party in parties], once=True),
        )

    def reveal(self, name: str) -> np.ndarray:
        """Puts the shares of a name together: float32."""
        _, arrays = self._ask("reveal", names=[name])
        return arrays[name]

    def forget(self, names: Sequence[str]) -> None:
        self._ask("forget", names=list(names))

    def views(self) -> list[View]:
        """What each party was given and sent since the last call, by rank; needs `record`."""
        _, arrays = self._ask("views")
        seen: dict[int, dict[str, list[bytes]]] = {}
        for name, array in arrays.items():
            rank, kind, _ = name.split("/")
            seen.setdefault(int(rank), {"share": [], "message": []})[kind].append(array.tobytes())
        return [View(rank, tuple(s["share"]), tuple(s["message"])) for rank, s in sorted(seen.items())]

    def close(self) -> None:
        if self._worker.poll() is None:
            self._worker.stdin.close()  # type: ignore[union-attr]
            try:
                self._worker.wait(20)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()
        self._worker.stdout.close()  # type: ignore[union-attr]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, verb: str, arrays: Mapping[str, np.ndarray] | None = None, **request: Any) -> Any:
        try:
            wire.send(self._worker.stdin, {"verb": verb} | request, arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise PartiesFailed("The worker of SPU has stopped; start the computation again.") from error
        return self._answer()

    def _answer(self) -> Any:
        try:
            told, arrays = wire.receive(self._worker.stdout)  # type: ignore[arg-type]
        except EOFError as error:
            raise PartiesFailed(
                f"The worker of SPU stopped; run `{self._python} -c 'import spu'` to see whether it still loads."
            ) from error
        if "error" in told:
            raise PartiesFailed(f"The parties could not compute that ({told['error']}); start them again.")
        return told, arrays


def _summed(parts: Sequence[Mapping[str, Sequence[int]]], once: bool = False) -> dict[str, tuple[int, int, int]]:
    """Sums by operation; `once`: every part is one party's account of the same operations."""
    found: dict[str, tuple[int, int, int]] = {}
    for part in parts:
        for name, (times, size, messages) in part.items():
            before = found.get(name, (0, 0, 0))
            times = times if once else before[0] + times
            found[name] = (times, before[1] + size, before[2] + messages)
    return found
