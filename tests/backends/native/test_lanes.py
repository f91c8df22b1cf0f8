"""Every lane function of each instruction set gives the bits of the portable one; Arm's by an emulator elsewhere."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("lanes.cpp")
HEADERS = Path(__file__).resolve().parents[3] / "src/headrace/backends/native/cpp"
FLAGS = {
    "avx2": ("-march=x86-64-v3",),
    "avx512": ("-march=x86-64-v4", "-mavx512vnni"),
    "neon": ("-march=armv8.2-a+dotprod",),
}
# The sanitizers that `make sanitize` puts before Python are not for compilers and emulators.
ALONE = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
ARM = platform.machine() in ("aarch64", "arm64")


def tools(isa: str) -> tuple[list[str], list[str]]:
    """The compiler with its options, and what runs its programs."""
    here = shlex.split(os.environ.get("CXX", "c++"))
    if (isa == "neon") == ARM:
        kernels = pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
        if isa not in kernels.instruction_sets():
            pytest.skip(f"this machine does not run {isa}")
        return here, []
    if isa == "neon":
        return ["aarch64-linux-gnu-g++", "-static"], ["qemu-aarch64"]
    pytest.skip(f"{isa} needs an x86-64 machine")


@pytest.mark.parametrize("isa", FLAGS)
def test_lanes_have_the_bits_of_the_portable_ones(isa: str, tmp_path: Path) -> None:
    compiler, runner = tools(isa)
    for tool in (compiler[0], *runner):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")
    program = str(tmp_path / "lanes")
    options = ["-std=c++20", "-O2", "-ffp-contract=off", f'-DTESTED="simd_{isa}.h"', "-I", str(HEADERS), "-o", program]
    subprocess.run([*compiler, *FLAGS[isa], *options, str(SOURCE)], check=True, env=ALONE)
    done = subprocess.run([*runner, program], stdout=subprocess.PIPE, text=True, env=ALONE)
    assert done.returncode == 0, done.stdout
