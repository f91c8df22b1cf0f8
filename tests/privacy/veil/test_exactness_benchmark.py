"""The exactness benchmark's own code on a tiny model: every part runs, goes on where it stopped, and is shown."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")
pytest.importorskip("scipy", reason="headrace[privacy] is not installed")
pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

from headrace.evidence.veiled import write_tiny

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
PARTS = ("answers", "throughput", "quantised")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setenv("HEADRACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield importlib.import_module("veil_exactness"), importlib.import_module("veil_exactness_page")


def test_every_part_runs_and_no_cell_twice(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    bench, page = modules
    source = write_tiny(tmp_path / "tiny")
    sizes = bench.Sizes(prompts=3, new=12, rounds=2, pace=4, tokens=1024, weights=("bf16", "int8"))
    assert bench.run(source, sizes, PARTS, seconds=-1)["done"] == 0
    found = bench.run(source, sizes, PARTS)
    assert found["done"] == found["cells"] == 3 + 2 * 2 + 2 * 2 * 3
    answers, speed, rounding = (found["summary"][part] for part in PARTS)
    assert (answers["prompts"], answers["wrong"]) == (3, 0) and answers["apart"] < 1e-3
    assert answers["same_text"] + len(answers["diverging"]) == 3
    assert speed["int8"]["rounds"] == 2 and speed["bf16"]["decode"]["veiled/plain"]["median"] > 0
    assert {(each["weights"], each["model"]) for each in rounding} == {
        (weights, model) for weights in ("bf16", "int8") for model in bench.TWINS
    }
    assert all(0 < each["mean_kl"] < 0.1 and each["top1_agreement"] > 0.8 for each in rounding)

    kept = next(bench.cache_folder().glob("privacy/*.jsonl"))
    lines = kept.read_text(encoding="utf-8").splitlines()
    kept.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20] + "\n", encoding="utf-8")
    again = bench.run(source, sizes, PARTS)
    assert len(kept.read_text(encoding="utf-8").splitlines()) == len(lines) + 1, "only the cut cell was run again"
    assert again["summary"] == found["summary"]
    shown(page, found, tmp_path)


def shown(page: ModuleType, found: dict, folder: Path) -> None:
    path = folder / "found.json"
    assert page.OPEN in page.section(path)
    path.write_text(json.dumps(found), encoding="utf-8")
    text = page.section(path)
    assert page.OPEN not in text and f"{found['summary']['answers']['apart']:.1e}" in text
    assert all(f"{each['mean_kl']:.2e}" in text for each in found["summary"]["quantised"])
    path.write_text(json.dumps(found | {"summary": {}}), encoding="utf-8")
    assert page.section(path).count(page.OPEN) == 3
    near = found["summary"]["answers"] | {"diverging": [{"prompt": 7, "at": 3, "margin": 2e-4}]}
    assert "Prompt 7 differs from token 3 on, where they are 2.0e-04 apart." in page.answers(near)
