"""What the README shows works: its commands and snippets are run as they stand there."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving import running_server

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    language: str
    role: str
    code: str


def blocks(*kind: str) -> list[Block]:
    """Fenced blocks by language and, after it, role: "" alone, "server", "client" of that server."""
    found = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [
        block for language, role, code in found if (block := Block(language, role, code)) and (language, role) == kind
    ]


def environment() -> dict[str, str]:
    """PATH on which `headrace` is this tree's command line."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "PATH": path}


def shell(code: str) -> str:
    command = f'headrace() {{ "{sys.executable}" -m headrace.cli "$@"; }}\nset -e\n{code}'
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment(), cwd=ROOT, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_commands_are_targets() -> None:
    (commands,) = blocks("console", "")
    lines = [line.removeprefix("$ ").split("#")[0].split() for line in commands.code.splitlines()]
    assert lines == [["make", "run"], ["make", "test"]]
    for words in lines:
        assert subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize("prompt", ["Why is the sky blue?", """It's "5 $HOME" `x` $(date) #1?""", "--help me", "-"])
def test_make_run_hands_over_any_prompt_as_it_is(prompt: str, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "headrace"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n', encoding="utf-8")
    program.chmod(0o755)
    for file in ("Makefile", "pyproject.toml", "constraints.txt", "CMakeLists.txt"):
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    (tmp_path / "bin" / "python").touch()
    (tmp_path / ".stamp-run").touch()
    words = ["make", "run", f"PROMPT={prompt}", f"VENV={tmp_path}"]
    # The make that runs these tests must not speak to the one under test.
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert shown.stdout.splitlines() == ["run", "--", prompt], shown.stderr


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_installed_size_is_the_measured_one() -> None:
    result = json.loads((ROOT / "results" / "prove" / "wheel.json").read_text(encoding="utf-8"))
    (figures,) = result["figures"].values()
    (stated,) = re.findall(r"installs about (\d+) MB", README)
    assert abs(int(stated) - figures["installed_bytes"] / 1e6) < 10


def test_the_layout_names_every_folder() -> None:
    (layout,) = blocks("text", "")
    named = set(re.findall(r"^  (\w+)/", layout.code, re.MULTILINE))
    assert named == {path.parent.name for path in (ROOT / "src" / "headrace").glob("*/__init__.py")}


def test_commands_run(smollm2: Path) -> None:
    (commands,) = blocks("bash", "")
    for line in commands.code.splitlines():
        output = shell(line)
        if "--json" in line:
            assert {"text", "token_ids", "finish_reason", "usage", "timing"} <= json.loads(output).keys()
        else:
            assert "smollm2-135m" in output if "models" in line else "Paris" in output


def test_python_snippet_runs(smollm2: Path) -> None:
    (snippet,) = blocks("python", "")
    answer, *branches = python(snippet.code).strip().split("\n", 1)
    assert "Paris" in answer
    assert branches


@pytest.fixture
def server(smollm2: Path) -> Iterator[str]:
    """Starts the README's server on a free port; gives that port."""
    (command,) = blocks("bash", "server")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    words = command.code.replace("8000", port).split()
    words = [sys.executable, "-m", "headrace.cli", *words[1:]]
    with running_server(words) as url:
        assert url == f"http://127.0.0.1:{port}/v1"
        yield port


def test_server_and_its_clients_run(server: str) -> None:
    for block in blocks("bash", "client"):
        assert json.loads(shell(block.code.replace("8000", server)))["choices"][0]["message"]["content"]
    for block in blocks("python", "client"):
        assert python(block.code.replace("8000", server)).strip()


def test_activating_brings_the_command(tmp_path: Path) -> None:
    (setup,) = blocks("bash", "setup")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv")], check=True)
    program = tmp_path / ".venv" / "bin" / "headrace"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    words = ["bash", "-c", f"{setup.code}command -v headrace python"]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True).stdout.split()
    assert found == [str(program), str(program.with_name("python"))]
    assert "\nVENV := .venv\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_client_that_is_named_is_the_one_tested() -> None:
    assert "`pip install openai`" in README
    assert "openai" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all("import OpenAI" in block.code for block in blocks("python", "client"))
