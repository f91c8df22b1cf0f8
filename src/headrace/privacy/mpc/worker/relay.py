"""Stands between parties and keeps what passes, so that what each of them saw can be tested; changes nothing.

With `lockstep` it lets messages through only when every party waits for one, all at once: the number of times it let a
value through is the number of rounds that wait for one another. Acknowledgements travel along and make no round.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

LOOK_SECONDS = 0.02
HEADER = 12
MAGIC, ACKNOWLEDGED = b"PRPC", b"ACK"
KEY, VALUE = 2, 3
"""The fields of a pushed message that name it and hold its bytes."""


class Relay:
    """One listening address for every ordered pair of parties. `parties`: their process ids, for lockstep."""

    def __init__(self, addresses: list[str], lockstep: bool) -> None:
        self._lock = threading.Lock()
        self._held: dict[socket.socket, bytearray] = {}
        self._sources: list[socket.socket] = []
        self._streams: dict[tuple[int, int], list[bytearray]] = {}
        self._lockstep, self.rounds, self._ended = lockstep, 0, False
        self.parties: Sequence[int] = ()
        self._listeners: list[socket.socket] = []
        self.ports: dict[tuple[int, int], str] = {}
        for sender in range(len(addresses)):
            for receiver, address in enumerate(addresses):
                if sender != receiver:
                    self._listen(sender, receiver, address)
        if lockstep:
            threading.Thread(target=self._release, daemon=True).start()

    def addresses_for(self, party: int, real: list[str]) -> list[str]:
        """What a party takes the others' addresses for."""
        return [own if other == party else self.ports[party, other] for other, own in enumerate(real)]

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing passes meanwhile: a party that has not been told yet what to compute only seems to wait."""
        with self._lock:
            yield

    def messages(self, receiver: int) -> list[bytes]:
        """The values that a party was sent since the last call."""
        found: list[bytes] = []
        with self._lock:
            for (_, to), streams in self._streams.items():
                for stream in streams if to == receiver else ():
                    found += taken(stream)
        return found

    def close(self) -> None:
        self._ended = True
        for listener in self._listeners:
            listener.close()

    def _listen(self, sender: int, receiver: int, address: str) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self._listeners.append(listener)
        self.ports[sender, receiver] = f"127.0.0.1:{listener.getsockname()[1]}"
        self._streams[sender, receiver] = []
        threading.Thread(target=self._accept, args=(listener, sender, receiver, address), daemon=True).start()

    def _accept(self, listener: socket.socket, sender: int, receiver: int, address: str) -> None:
        host, port = address.split(":")
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
            except OSError:
                if self._ended:
                    return
                near.close()  # the other party does not listen yet; the first one tries again
                continue
            stream = bytearray()
            with self._lock:
                self._streams[sender, receiver].append(stream)
                self._sources += [near, far]
            threading.Thread(target=self._pump, args=(near, far, stream), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, None), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
        """`kept`: where what is sent is kept; None for what only answers, which is never held."""
        try:
            while source.recv(1, socket.MSG_PEEK):
                with self._lock:  # nothing is between a socket and what is held when lockstep looks
                    data = source.recv(1 << 16)
                    if kept is None:
                        target.sendall(data)
                        continue
                    kept += data
                    if self._lockstep:
                        self._held.setdefault(target, bytearray()).extend(data)
                        continue
                target.sendall(data)
        except OSError:
            pass
        finally:
            with self._lock:
                self._sources = [one for one in self._sources if one not in (source, target)]
            source.close()
            target.close()

    def _release(self) -> None:
        before = None
        while not self._ended:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                now = self._at_rest() if self._held else None
                if now is None or now != before:
                    before = now
                    continue
                ready, self._held, before = self._held, {}, None
                self.rounds += any(taken(bytearray(data)) for data in ready.values())
            for target, data in ready.items():
                with suppress(OSError):
                    target.sendall(data)

    def _at_rest(self) -> list[int] | None:
        """How often each party has run so far: twice the same, and none of them did in between. None: not at rest."""
        times = [times_run(process) for process in self.parties]
        unread = self._sources and select.select(self._sources, [], [], 0)[0]
        return None if unread or None in times else [one for one in times if one is not None]


def times_run(process: int) -> int | None:
    """How often its threads gave up a processor, or None unless all of them sleep until something happens.

    One that wants a processor, waits for a disk or was stopped does not sleep. Where the system has no /proc it is 0,
    and a party that is late may make one round two.
    """
    found = 0
    for status in Path(f"/proc/{process}/task").glob("*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        except (FileNotFoundError, ProcessLookupError):
            return None  # a thread has just ended
        if fields["State"].split()[0] != "S":
            return None
        found += int(fields["voluntary_ctxt_switches"]) + int(fields["nonvoluntary_ctxt_switches"])
    return found


def taken(stream: bytearray) -> Iterable[bytes]:
    """The values of all whole frames of a connection (brpc's own protocol), which are removed from it."""
    found = []
    while len(stream) >= HEADER and stream[:4] == MAGIC:
        size = int.from_bytes(stream[4:8], "big")
        if len(stream) < HEADER + size:
            break
        meta = int.from_bytes(stream[8:12], "big")
        found += pushed(bytes(stream[HEADER + meta : HEADER + size]))
        del stream[: HEADER + size]
    return found


def pushed(request: bytes) -> list[bytes]:
    """The value of a pushed message, unless it only acknowledges another (protocol buffers' wire format)."""
    at, found = 0, {}
    while at < len(request):
        tag, at = varint(request, at)
        if tag & 7 == 2:
            size, at = varint(request, at)
            found[tag >> 3] = request[at : at + size]
            at += size
        elif tag & 7 == 0:
            _, at = varint(request, at)
        else:
            break
    acknowledges = found.get(KEY, b"").startswith(ACKNOWLEDGED)
    return [] if acknowledges or VALUE not in found else [found[VALUE]]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    found = shift = 0
    while True:
        byte = data[at]
        found, shift, at = found | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return found, at
