"""What goes wrong ends in one sentence on stderr and an exit code, never in a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.main import Verbs
from headrace.spec.errors import EngineStopped, HeadraceError, InvalidRequest, PlanRejected


def raising(error: BaseException) -> typer.Typer:
    small = typer.Typer(cls=Verbs, pretty_exceptions_enable=False)
    small.callback()(lambda: None)

    @small.command()
    def fail() -> None:
        raise error

    return small


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HeadraceError("It is cut off;\n pull it again."), 2),
        (InvalidRequest("temperature is -1; give more.", "temperature"), 2),
        (PlanRejected("It needs 9 MiB; raise --memory."), 2),
        (EngineStopped("The engine has stopped; load the model again."), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    result = CliRunner().invoke(raising(error), ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == (" ".join(str(error).split()) + "\n" if str(error) else "")


def test_a_defect_is_not_dressed_up_as_an_error() -> None:
    assert isinstance(CliRunner().invoke(raising(ZeroDivisionError()), ["fail"]).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("run", "no/such/file.gguf", "hello"), "no/such/file.gguf"),
        (("run", "a", "b", "c"), "put the prompt in quotes"),
        (("run", "hello", "--temperature", "-1"), "temperature is -1"),
        (("bench", "--concurrency", "1,x"), "1,8,32"),
        (("bench", "--url", "http://127.0.0.1:9/v1"), "check --url"),
        (("bench", "--url", "http://127.0.0.1:9/v1", "--prompt-tokens", "about 5"), "uniform:16:256"),
        (("evidence", "run", "no-such-claim"), "no-such-claim"),
        (("pull", "no/such/file.gguf"), "no/such/file.gguf"),
    ],
)
def test_a_wrong_argument_is_one_sentence(words: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "headrace.cli", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.rstrip().endswith(".")
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "model.gguf"
    wrong.write_bytes(b"not a model at all" * 10)
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "run", str(wrong), "hello"], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith(".")
    assert "Traceback" not in done.stderr
