"""How far a backend's or a peer's logits are from fp32 of the same file.

For each subject, over windows of real English text: the mean Kullback-Leibler divergence from fp32's next-token
distribution at every position, and how often both name the same most likely token. Then eight questions: does
the subject, at temperature 0, give fp32's answer token for token?

    python benchmarks/accuracy.py llama.cpp headrace:dtype=bf16 [--tokens 20000] [--output FILE]

A subject is `headrace` or `llama.cpp`, with options behind a colon: those of EngineOptions (backend, dtype, ...)
or arguments of llama_cpp.Llama. Every window is written as it is done, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_subjects import WINDOW, Headrace, Subject, open_subject

from headrace.cli.machine import measured_on
from headrace.evidence.machine import commit_of, today
from headrace.model.tokenizer import Tokenizer
from headrace.privacy.statistics import log_softmax
from headrace.spec.errors import HeadraceError

ROOT = Path(__file__).resolve().parents[1]
ANSWER_TOKENS = 40
QUESTIONS = (
    "What is the capital of France?",
    "What is 2 + 2?",
    "Who wrote Romeo and Juliet?",
    "What colour is the sky on a clear day?",
    "How many days are there in a week?",
    "What is the largest planet in the solar system?",
    "Write one sentence about the sea.",
    "Translate 'good morning' into French.",
)


def compare(fp32: np.ndarray, other: np.ndarray, tokens: Sequence[int]) -> dict[str, Any]:
    """Figures of one window, in nats a token. Logits [tokens, vocab]; the last position has no target in the text."""
    divergence, nll = [], np.zeros(2)
    for at in range(0, len(tokens), 64):  # float64 of a whole window would take gigabytes
        p, q = log_softmax(fp32[at : at + 64]), log_softmax(other[at : at + 64])
        divergence.append((np.exp(p) * (p - q)).sum(axis=-1))
        for position, target in enumerate(tokens[at + 1 : at + 65]):
            nll -= p[position, target], q[position, target]
    kl = np.concatenate(divergence)
    agreed = int((fp32.argmax(axis=-1) == other.argmax(axis=-1)).sum())
    return {
        "tokens": len(tokens), "kl": float(kl.mean()), "kl_max": float(kl.max()), "agreed": agreed,
        "nll_fp32": float(nll[0]) / (len(tokens) - 1), "nll": float(nll[1]) / (len(tokens) - 1),
    }  # fmt: skip


def summary(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The error is that of the mean over windows, whose tokens are not independent of each other."""
    means = np.array([window["kl"] for window in windows])
    tokens = sum(window["tokens"] for window in windows)
    return {
        "tokens": tokens,
        "mean_kl": float(means.mean()),
        "mean_kl_error": float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None,
        "max_kl": max(window["kl_max"] for window in windows),
        "top1_agreement": sum(window["agreed"] for window in windows) / tokens,
        "perplexity_fp32": math.exp(np.mean([window["nll_fp32"] for window in windows])),
        "perplexity": math.exp(np.mean([window["nll"] for window in windows])),
    }


def text_windows(tokenizer: Tokenizer, text: str, tokens: int) -> list[list[int]]:
    """Windows of 512 tokens spread evenly over the text. Raises HeadraceError for a text that is too short."""
    ids, count = tokenizer.encode(text), -(-tokens // WINDOW)
    stride = (len(ids) - WINDOW) // max(count - 1, 1)
    if stride < WINDOW:
        raise HeadraceError(f"The text has {len(ids)} tokens; give --text a longer one or ask for fewer --tokens.")
    return [ids[at * stride : at * stride + WINDOW] for at in range(count)]


def answers(fp32: Headrace) -> list[tuple[str, list[int], list[int]]]:
    """Question, prompt and fp32's answer."""
    found = []
    for question in QUESTIONS:
        prompt = fp32.tokenizer.encode_chat([{"role": "user", "content": question}])
        found.append((question, prompt, fp32.greedy(prompt, ANSWER_TOKENS)))
    return found


def same_answers(
    subject: Subject, expected: Sequence[tuple[str, list[int], list[int]]], tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """For each question the index of the first token that the subject would draw otherwise, None where all agree.

    One pass over prompt and answer tells: until the first difference greedy decoding sees just these tokens.
    """
    found = []
    for question, prompt, answer in expected:
        drawn = subject.logits(prompt + answer[:-1])[len(prompt) - 1 :].argmax(axis=-1)
        different = np.flatnonzero(drawn != np.array(answer))
        first = int(different[0]) if len(different) else None
        found.append({"question": question, "answer": tokenizer.decode(answer), "first_difference": first})
    return found


@dataclass
class Measured:
    subject: Subject
    row: dict[str, Any]

    def window(self, number: int, of: int, tokens: Sequence[int], fp32: np.ndarray) -> None:
        self.row["windows"].append(compare(fp32, self.subject.logits(tokens), tokens))
        self.row |= summary(self.row["windows"])
        figures = f"KL {self.row['mean_kl']:.2e}, top-1 {self.row['top1_agreement']:.2%}"
        print(f"{self.row['subject']} {number + 1}/{of}: {figures}", flush=True)

    def answer(self, expected: Sequence[tuple[str, list[int], list[int]]], fp32: Headrace) -> None:
        self.row["answers"] = same_answers(self.subject, expected, fp32.tokenizer)
        self.row["answers_equal"] = sum(answer["first_difference"] is None for answer in self.row["answers"])

    def total(self) -> str:
        row = self.row
        divergence = f"KL {row['mean_kl']:.2e} over {row['tokens']} tokens, top-1 {row['top1_agreement']:.2%}"
        return f"{row['subject']}: {divergence}, {row['answers_equal']} of {len(QUESTIONS)} answers equal fp32's"


def measure(
    measured: Sequence[Measured], fp32: Headrace, windows: Sequence[list[int]], save: Callable[[], None]
) -> None:
    """fp32 runs once a window for all subjects that lack it."""
    for number, tokens in enumerate(windows):
        lacking = [each for each in measured if len(each.row["windows"]) == number]
        expected = fp32.logits(tokens).copy() if lacking else np.empty(0)
        for each in lacking:
            each.window(number, len(windows), tokens, expected)
            save()
    unasked = [each for each in measured if each.row["answers"] is None]
    expected_answers = answers(fp32) if unasked else []
    for each in unasked:
        each.answer(expected_answers, fp32)
        save()


def row_for(results: dict[str, Any], name: str, about: dict[str, Any], fresh: bool) -> dict[str, Any]:
    """The row to go on with, or a new one in the place of an older one of that subject."""
    rows = results["rows"]
    for row in rows:
        if row["subject"] == name and row["about"] == about and not fresh:
            return row
    rows[:] = [row for row in rows if row["subject"] != name]
    rows.append({"subject": name, "about": about, "commit": commit_of(ROOT), "windows": [], "answers": None})
    return rows[-1]


def opened(path: Path, model: str, text: dict[str, Any]) -> dict[str, Any]:
    """The results of an earlier call. Raises HeadraceError where they were measured on something else."""
    task = {"kind": "accuracy", "model": model, "text": text}
    if not path.exists():
        return task | {"machine": measured_on(), "date": datetime.now(UTC).isoformat(timespec="seconds"), "rows": []}
    results = json.loads(path.read_text(encoding="utf-8"))
    if any(results.get(key) != value for key, value in task.items()):
        raise HeadraceError(f"{path} is of another model or text; name another --output.")
    return results


def english(path: Path | None) -> tuple[str, str]:
    """Name and text; without a path the language reference that every Python carries (PSF licence)."""
    if path is not None:
        return path.name, path.read_text(encoding="utf-8")
    from pydoc_data.topics import topics

    version = ".".join(map(str, sys.version_info[:3]))
    return f"pydoc_data.topics of Python {version}", "".join(topics.values())


def run(arguments: argparse.Namespace) -> None:
    fp32 = Headrace.load(arguments.model, {"backend": "reference", "dtype": "fp32"})
    name, text = english(arguments.text)
    windows = text_windows(fp32.tokenizer, text, arguments.tokens)
    digest = sha256(np.array(windows, np.int32).tobytes()).hexdigest()
    results = opened(arguments.output, fp32.name, {"name": name, "window": WINDOW, "token_sha256": digest})

    def save() -> None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        partial = arguments.output.with_suffix(".part")
        partial.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(arguments.output)

    measured = []
    for subject_name in arguments.subjects:
        subject = open_subject(subject_name, arguments.model, fp32.executor.spec.vocab, arguments.llama_python)
        measured.append(Measured(subject, row_for(results, subject_name, subject.about, arguments.fresh)))
    measure(measured, fp32, windows, save)
    for each in measured:
        each.subject.close()
        print(each.total())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("subjects", nargs="+", help="headrace[:option=value,...] or llama.cpp[:option=value,...]")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=20_000, help="rounded up to whole windows of 512")
    parser.add_argument("--text", type=Path, help="a text file (default: Python's own language reference)")
    parser.add_argument("--fresh", action="store_true", help="measure anew what the output already has")
    parser.add_argument("--llama-python", type=Path, help="an interpreter with llama-cpp-python (default: one is made)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / f"accuracy-{today()}.json")
    try:
        run(parser.parse_args())
    except HeadraceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
