"""What is sent over a pipe arrives as it was, whatever its shape."""

from __future__ import annotations

import io

import numpy as np
import pytest

from headrace.privacy.mpc.wire import receive, send


def test_messages_and_arrays_arrive() -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "none": np.zeros((0, 4), np.int64),
        "bytes": np.frombuffer(b"\n{}\x00", np.uint8),
        "yes": np.array([True, False]),
    }
    pipe = io.BytesIO()
    send(pipe, {"verb": "share", "text": "Zeile\nzwei"}, arrays)
    send(pipe, {"verb": "end"})
    pipe.seek(0)
    message, found = receive(pipe)
    assert message == {"verb": "share", "text": "Zeile\nzwei"} and list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
    assert receive(pipe) == ({"verb": "end"}, {})
    with pytest.raises(EOFError):
        receive(pipe)


def test_a_cut_array_is_an_end() -> None:
    pipe = io.BytesIO()
    send(pipe, {}, {"a": np.ones(4)})
    with pytest.raises(EOFError):
        receive(io.BytesIO(pipe.getvalue()[:-1]))
