"""The worker's environment: refused in one sentence where it cannot be made, found again where it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.privacy.mpc.environment import PACKAGES, make_worker, worker_python
from headrace.privacy.mpc.errors import WorkerUnavailable


def test_what_pip_cannot_install_is_refused_in_one_sentence(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(WorkerUnavailable) as refused:
        make_worker(told.append, tmp_path, ("./no-such-wheel-1.0-py3-none-any.whl",))
    sentence = str(refused.value)
    assert "no-such-wheel" in sentence and sentence.endswith(".") and sentence.count("\n") == 0
    assert "try again" in sentence and str(tmp_path / "install.log") in sentence
    assert told[0].startswith("Making the environment") and worker_python(tmp_path) is None


def test_an_environment_of_other_versions_is_none(tmp_path: Path) -> None:
    stamp = tmp_path / "installed.json"
    stamp.write_text(json.dumps(["spu==0.9.4", *PACKAGES[1:]]))
    assert worker_python(tmp_path) is None
    stamp.write_text(json.dumps(PACKAGES))
    assert worker_python(tmp_path) == tmp_path / "venv" / "bin" / "python"
    assert make_worker(lambda line: pytest.fail(line), tmp_path) == worker_python(tmp_path)


def test_an_environment_that_was_not_finished_is_none(tmp_path: Path) -> None:
    stamp = tmp_path / "installed.json"
    stamp.write_text(json.dumps(PACKAGES)[:-9])
    assert worker_python(tmp_path) is None
    stamp.write_text(json.dumps(PACKAGES))
    with pytest.raises(WorkerUnavailable):
        make_worker(lambda line: None, tmp_path, ("./no-such-wheel-1.0-py3-none-any.whl",))
    assert worker_python(tmp_path) is None, "the one before it has been overwritten"
