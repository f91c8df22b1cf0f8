"""What makes a round: a value that every party waits for. Late parties and acknowledgements make none."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace.privacy.mpc.worker.relay import Relay, times_run

VALUE, ACKNOWLEDGEMENT = b"\x12\x03key\x1a\x05share", b"\x12\x05ACK 1\x1a\x01x"

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture()
def relay() -> Iterator[tuple[Relay, Ends, Ends]]:
    """In lockstep between two parties: a connection each way, the end that sends and the one that receives."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    relay = Relay([f"127.0.0.1:{server.getsockname()[1]}" for server in servers], lockstep=True)
    ways = []
    for way, server in (((0, 1), servers[1]), ((1, 0), servers[0])):
        host, port = relay.ports[way].split(":")
        sender = socket.create_connection((host, int(port)))
        ways.append((sender, server.accept()[0]))
    yield relay, ways[0], ways[1]
    relay.close()
    for one in (*servers, *ways[0], *ways[1]):
        one.close()


@pytest.fixture()
def party() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits, once it has said so."""
    command = [sys.executable, "-c", "print(); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as found:
        assert found.stdout is not None
        found.stdout.readline()
        yield found
        found.kill()


def frame(content: bytes) -> bytes:
    return b"PRPC" + len(content).to_bytes(4, "big") + bytes(4) + content


def received(connection: socket.socket, size: int) -> bytes:
    connection.settimeout(60)
    return connection.recv(size, socket.MSG_WAITALL)


def test_only_values_make_rounds(relay: tuple[Relay, Ends, Ends]) -> None:
    found, (near, far), (back_near, back_far) = relay
    acknowledgement, value = frame(ACKNOWLEDGEMENT), frame(VALUE)
    near.sendall(acknowledgement)
    assert received(far, len(acknowledgement)) == acknowledgement and found.rounds == 0
    with found.still():
        near.sendall(value)
        back_near.sendall(acknowledgement + value)
    assert received(far, len(value)) == value
    assert received(back_far, len(acknowledgement + value)) == acknowledgement + value
    assert found.rounds == 1 and found.messages(1) == found.messages(0) == [b"share"]


@pytest.mark.skipif(sys.platform != "linux", reason="what a process does is read from /proc")
def test_nothing_passes_before_every_party_waits(
    relay: tuple[Relay, Ends, Ends], party: subprocess.Popen[bytes]
) -> None:
    found, (near, far), _ = relay
    found.parties = [party.pid]
    party.send_signal(signal.SIGSTOP)
    near.sendall(frame(VALUE))
    far.settimeout(0.3)
    with pytest.raises(TimeoutError):
        far.recv(1)
    assert found.rounds == 0
    party.send_signal(signal.SIGCONT)
    assert received(far, len(frame(VALUE))) == frame(VALUE) and found.rounds == 1


@pytest.mark.skipif(sys.platform != "linux", reason="what a process does is read from /proc")
def test_a_process_is_seen_to_compute() -> None:
    command = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        assert times_run(busy.pid) is None
        busy.kill()
