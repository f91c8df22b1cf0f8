"""A trace is read as far as it was written, wherever a kill has torn its last line; other files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.spec.errors import InvalidRequest
from headrace.spec.trace import FORMAT, Trace


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"{}\n", b'"abcde"\n', b'[0, "run", "", 0, [1]]\n', b"\xff\n[]\n"]
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest):
        Trace.load(path)


def test_a_trace_cut_at_any_byte_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    trace = Trace(path)
    trace.add("run", format=FORMAT, question="é – ?")
    trace.add("extend", "0", 1, text="a\u2028b – c")
    trace.close()
    whole = path.read_bytes()
    first = whole.index(b"\n")
    for length in range(first + 1, len(whole) + 1):
        path.write_bytes(whole[:length])
        found = Trace.load(path).events
        assert found == trace.events[: len(found)]
        assert len(found) == (2 if length >= len(whole) - 1 else 1)
    for length in range(first):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidRequest, match="no trace"):
            Trace.load(path)
