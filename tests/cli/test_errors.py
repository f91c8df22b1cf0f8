"""What goes wrong ends in one sentence on stderr and an exit code, never in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.main import Verbs
from headrace.model.catalogue import resolve
from headrace.server.config import ServerConfig
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
        (("run", ""), "The prompt is empty"),
        (("run", "smollm2-135m"), "smollm2-135m is a model"),
        (("run", "bad \udcff bytes"), "not valid UTF-8"),
        (("run", "hello", "--stop", "\udcff"), "not valid UTF-8"),
        (("chat", "--system", "\udcff"), "not valid UTF-8"),
        (("run", "hello", "--seed", "-1"), "--seed is -1"),
        (("chat", "--seed", "12345678901234567890123"), "9223372036854775807"),
        (("bench", "--output", "no/such/folder/x.json"), "no/such/folder is no folder"),
        (("bench", "--output", "."), "is a folder"),
        (("serve", "--drain-seconds", "-1"), "--drain-seconds is -1"),
        (("serve", "--request-seconds", "0"), "--request-seconds is 0"),
        (("bench", "--concurrency", "1,x"), "1,8,32"),
        (("bench", "--url", "http://127.0.0.1:9/v1"), "check --url"),
        (("bench", "--url", "http://127.0.0.1:9/v1", "--prompt-tokens", "about 5"), "uniform:16:256"),
        (("evidence", "run", "no-such-claim"), "no-such-claim"),
        (("pull", "no/such/file.gguf"), "no/such/file.gguf does not exist"),
        (("run", "nofile.gguf"), "nofile.gguf does not exist; give the path"),
        (("run", "./nofile.gguf", "hello"), "./nofile.gguf does not exist; check the path"),
        (("run", "folder/nofile.gguf", "hello"), "folder/nofile.gguf does not exist"),
        (("evidence", "run", "7"), "System 7, songgen, is planned"),
        (("evidence", "run", "songgen"), "choose one of equivariant-encryption"),
        (("evidence", "run", "200"), "There is no claim '200'"),
        (("run", "hello", "--memory", "abc"), "--memory takes a whole number; see `headrace run --help`"),
        (("run", "hello", "--backend", "fast"), "--backend takes one of auto, native, reference"),
        (("run", "hello", "--top-p", "much"), "--top-p takes a number"),
        (("bench", "--requests", "0"), "--requests takes a whole number of at least 1"),
        (("run", "hello", "--memori", "5"), "has no option --memori; did you mean --memory"),
        (("run", "hello", "--seed"), "--seed"),
        (("run",), "headrace run needs [MODEL] PROMPT"),
        (("evidence", "run"), "headrace evidence run needs CLAIM"),
        (("walk",), "headrace --help"),
        (("--fast",), "headrace has no option --fast"),
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


def headrace_process(*words: str, **named) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "headrace.cli", *words], capture_output=True, **named)


@pytest.mark.parametrize("verb", [("run", "hi"), ("pull", "smollm2-135m")])
@pytest.mark.parametrize("name", ["HEADRACE_CACHE", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("place", ["a file", "a place that cannot be"])
def test_a_cache_that_cannot_be_used_is_one_sentence(verb, name: str, place: str, tmp_path: Path) -> None:
    folder = tmp_path / "taken" if place == "a file" else Path("/proc/nope")
    if place == "a file":
        folder.touch()
    kept = {key: value for key, value in os.environ.items() if key not in ("HEADRACE_CACHE", "XDG_CACHE_HOME")}
    done = headrace_process(*verb, env=kept | {name: str(folder)})
    said = done.stderr.decode()
    assert (done.returncode, said.count("\n")) == (2, 1), said
    assert str(folder) in said and f"set {name} to a folder" in said


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied", "a/b"), "Cannot use a/b (Permission denied); check that"),
        (OSError(28, "No space left on device"), "The system refused: No space left on device; put that right"),
        (TimeoutError(), "The system refused: TimeoutError; put that right"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error: OSError, sentence: str) -> None:
    result = CliRunner().invoke(raising(error), ["fail"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(sentence) and result.stderr.endswith(".\n")


@pytest.mark.parametrize(("data", "hint"), [(b"bad \xff bytes", "not valid UTF-8"), (b" \n", "The prompt is empty")])
def test_a_bad_prompt_from_stdin_is_one_sentence(data: bytes, hint: str) -> None:
    done = headrace_process("run", "-", input=data)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert hint in done.stderr.decode()


@pytest.mark.parametrize("module", ["headrace.cli.run", "headrace.spec.errors", "typer"])
def test_an_interrupt_while_importing_has_no_traceback(module: str) -> None:
    """The signal comes at the very import of `module`."""
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from headrace.cli.main import app
sys.exit(app(["--version"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_piped_table_has_a_line_a_row_without_padding(headrace) -> None:
    lines = headrace("evidence", "list").stdout.splitlines()
    rows = json.loads(headrace("evidence", "list", "--json").stdout)
    assert lines[0].split("\t") == ["#", "system", "state", "claim", "about"]
    assert [line.split("\t")[1] for line in lines[1:]] == [row["id"] for row in rows]
    assert "  " not in "".join(lines)


@pytest.mark.parametrize("name", ["max_request_bytes", "max_choices", "body_seconds", "request_seconds"])
def test_limits_of_the_server_are_checked(name: str) -> None:
    for value in (0, -1):
        with pytest.raises(InvalidRequest, match=name.replace("_", "-")):
            ServerConfig(**{name: value})
    with pytest.raises(InvalidRequest, match="drain-seconds"):
        ServerConfig(drain_seconds=float("nan"))
    assert ServerConfig(drain_seconds=0).drain_seconds == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--backend", "native", "--dtype", "bf16"), "--dtype is for the reference backend"),
        (("--backend", "reference", "--activations", "int8"), "--activations is for the native backend"),
        (("--backend", "reference", "--weights", "int4"), "--weights is for the native backend"),
    ],
)
def test_an_option_of_the_other_backend_is_refused(headrace, flags: tuple[str, ...], named: str) -> None:
    pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    pytest.importorskip("torch", reason="the reference backend needs torch")
    refused = headrace("run", "hello", *flags)
    assert refused.exit_code == 2 and named in refused.stderr


def test_an_encoder_names_what_it_can_do(headrace) -> None:
    try:
        resolve("minilm-l6")
    except HeadraceError as error:
        pytest.skip(f"minilm-l6 cannot be pulled here: {error}")
    for verb, words in (("chat", ()), ("run", ("hello",)), ("run", ("hello", "--raw"))):
        refused = headrace(verb, "minilm-l6", *words, "--threads", "1")
        assert refused.exit_code == 2
        assert "is an encoder" in refused.stderr and "`headrace serve minilm-l6`" in refused.stderr
        assert "--raw" not in refused.stderr
