"""Files that are no trace are said to be none."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.spec.errors import InvalidRequest
from headrace.spec.trace import Trace


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"{}\n", b'"abcde"\n', b'[0, "run", "", 0, [1]]\n', b"\xff\n[]\n"]
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest):
        Trace.load(path)


def test_a_last_line_cut_inside_a_character_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    trace = Trace(path)
    trace.add("run", format=1)
    trace.add("extend", text="größer")
    trace.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("ö".encode()) + 1])
    assert [event.kind for event in Trace.load(path).events] == ["run"]
