"""System 65, adaptive inference-time compute: does a model know, also half-way, whether its attempt will be right?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.evidence.self_evaluation import Looked, attempts, auc_gain, looks
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.evaluation.probing import recipe_of
from headrace.reason.evaluation.states import read_examples
from headrace.reason.intervals import Interval, bootstrap, bootstrap_weights, paired_bootstrap, percentiles
from headrace.reason.scorers.probe import Probe
from headrace.reason.statistics import auc
from headrace.reason.tasks.arith import CHECK, DIALS, VERDICTS
from headrace.reason.tasks.fixtures import fixture
from headrace.reason.tasks.registry import items
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.events import StepEvent
from headrace.spec.sampling import Stop

ROW = system(65)
KNOWS, ADAPTS, PRUNES, CHEAP = ROW.clauses
MODEL, STATE, WIDTH, STEPS = "lm-t-small", "hidden:3", 64, 2000
"""The state was chosen on questions of the split tune."""
SAMPLES, MOST, AIM = 8, 2.0, 1.9
"""The threshold of adaptive sampling is set for AIM samples on other questions, and judged by MOST."""
KEPT, POINT, TEMPERATURE = 0.7, 0.01, 0.8
PLACES, OTHERS = ("half", "end"), ("verdict", "probe", "logprob")

Figures = dict[str, float | int | str | list[float]]
Look = Callable[[Engine, SequenceHandle], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Questions of the split tune to learn from and to choose by, and of eval."""

    tune: int
    choosing: int
    evaluated: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(0, 0, 0), "full": Sizes(500, 100, 800)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    with Stage.tiny() as stage, stage.engine() as engine:
        cheap, numbers = cost(engine, list(range(3, 40)), read)
        again, _ = cost(engine, list(range(3, 40)), sent_again)
    null_run = mutant_run("Mutant: an evaluation that sends the attempt again", [again])
    effects, interval = [left_open(text, NOT_IN_QUICK) for text in (KNOWS, ADAPTS, PRUNES)], None
    if sizes.evaluated:
        try:
            effects, cheap, interval, numbers = measured(sizes)
        except HeadraceError as error:
            effects = [left_open(text, f"{MODEL} cannot be had: {error}") for text in (KNOWS, ADAPTS, PRUNES)]
    return Evidence(CLAIM.id, (*effects, cheap), null_run, numbers, interval, "", size)


# -- what a look costs -----------------------------------------------------------------------------


def read(engine: Engine, sequence: SequenceHandle) -> None:
    """The probe's look."""
    sequence.read(STATE if len(engine.spec.layers) > 2 else "hidden:-1").result()


def ask(engine: Engine, sequence: SequenceHandle) -> None:
    """The token's look."""
    (fork,) = sequence.fork(1, aside=True)
    with fork:
        fork.append(CHECK)
        fork.score(list(VERDICTS)).result()


def sent_again(engine: Engine, sequence: SequenceHandle) -> None:
    """A look as a new request without what the first one left."""
    with engine.open_now([3, *sequence.tokens]) as other:
        other.read().result()


def cost(engine: Engine, prompt: Sequence[int], look: Look) -> tuple[Clause, Figures]:
    """Positions that the engine computes more, for a look half-way and one at the end of an attempt of 48 tokens."""
    without, pages = _positions(engine, prompt, lambda engine, sequence: None)
    with_looks, more = _positions(engine, prompt, look)
    each = (with_looks - without) / 2
    figure = (
        f"{each:g} positions a look, half-way and at the end, behind {len(prompt) + 24} and {len(prompt) + 48} tokens; "
        f"{more - pages} pages more at most"
    )
    return judged(CHEAP, each <= 1 and more - pages <= 1, figure), {"positions_a_look": each}


def _positions(engine: Engine, prompt: Sequence[int], look: Look) -> tuple[int, int]:
    """Computed by the engine's own count, and the most pages that were held."""
    seen: list[StepEvent] = []
    engine.clear_cache()
    stop = engine.events.listen(seen.append)
    try:
        with engine.open_now(list(prompt), seed=1) as sequence:
            for _ in range(2):
                sequence.extend(Stop(tokens=24, ignore_eos=True)).result()
                look(engine, sequence)
    finally:
        stop()
    computed = sum(tokens for event in seen for _, _, tokens in event.sequences)
    return computed, max(event.pages_used for event in seen)


# -- what the looks are worth ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pool:
    """Attempts of one split, [questions, SAMPLES]: right or not, their tokens, and scores by name and place."""

    right: np.ndarray
    tokens: np.ndarray
    halves: np.ndarray
    scores: dict[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, found: Sequence[Looked], probe: Probe) -> Pool:
        said = probe.head(np.stack([one.states for one in found]))

        def table(values: Sequence[float] | np.ndarray) -> np.ndarray:
            return np.asarray(values).reshape(-1, SAMPLES)

        scores = {}
        for column, place in enumerate(PLACES):
            scores["probe", place] = table(said[:, column])
            for name in ("verdict", "logprob"):
                scores[name, place] = table([getattr(getattr(one, name), place) for one in found])
        tokens = np.array([one.tokens for one in found])
        return cls(table([one.right for one in found]), table(tokens[:, 1]), table(tokens[:, 0]), scores)

    def auc(self, name: str, place: str) -> tuple[float, Interval]:
        questions = np.repeat(np.arange(len(self.right)), SAMPLES).tolist()
        return auc(self.scores[name, place].ravel().tolist(), self.right.ravel().tolist(), questions, resamples=500)


def measured(sizes: Sizes) -> tuple[list[Clause], Clause, Interval, Figures]:
    steps, largest = DIALS["sums"]
    task = f"arith:sums(steps={steps}, largest={largest}"
    with Engine.load(fixture(MODEL)) as engine:
        tune, probe = learned(engine, f"{task}, split='tune')", steps, sizes)
        asked = items(f"{task})", sizes.evaluated)
        drawn = attempts(engine, asked, SAMPLES, TEMPERATURE, seed=1)
        found = looks(engine, {item.id: item for item in asked}, drawn, steps, STATE)
        prompt = engine.encode(asked[0].task.prompt())
        cheap, numbers = cost(engine, prompt, read)
        token, more = cost(engine, prompt, ask)
    pool = Pool.of(found, probe)
    name = max(("verdict", "probe"), key=lambda name: _best(tune.scores[name, "end"], tune.right).mean())
    knows, interval, aucs = known(pool, name)
    adapts, samples = adapted(pool, name, enough(tune, name))
    prunes, pruning = pruned(pool, name)
    cheap = judged(CHEAP, cheap.status == "passed", f"probe: {cheap.figure}; token and its question: {token.figure}")
    numbers |= {"token_positions": more["positions_a_look"]} | aucs | samples | pruning
    return [knows, adapts, prunes], cheap, interval, numbers


def learned(engine: Engine, task: str, steps: int, sizes: Sizes) -> tuple[Pool, Probe]:
    """A probe of the split tune, and the pool of other questions of that split."""
    from headrace.adapt.head_training import train_head

    asked = items(task, sizes.tune + sizes.choosing)
    drawn = attempts(engine, asked, SAMPLES, TEMPERATURE, seed=2)
    learn, choose = ({item.id: item for item in part} for part in (asked[: sizes.tune], asked[sizes.tune :]))
    ours, others = ([sample for sample in drawn if sample.item in part] for part in (learn, choose))
    examples = asyncio.run(read_examples(engine, learn, ours, STATE, concurrency=16))
    recipe = recipe_of(examples, engine.model_name, STATE, WIDTH, steps=STEPS)
    with TemporaryDirectory() as folder:
        probe = Probe(train_head(recipe, examples.states, examples.labels, Path(folder) / "probe"))
    return Pool.of(looks(engine, choose, others, steps, STATE), probe), probe


def known(pool: Pool, name: str) -> tuple[Clause, Interval, Figures]:
    """AUC against the log-probability's over the same attempts."""
    gains = {place: auc_gain(pool.scores[name, place], pool.scores["logprob", place], pool.right) for place in PLACES}
    told, numbers = [], Figures()
    for place in PLACES:
        found = {one: pool.auc(one, place) for one in OTHERS}
        numbers |= {f"auc_{one}_{place}": value for one, (value, _) in found.items()}
        words = ", ".join(f"{one} {value:.3f} [{low:.3f}, {high:.3f}]" for one, (value, (low, high)) in found.items())
        gain, (low, high) = gains[place]
        told.append(f"{place}: {words}; {name} over log-probability {gain:+.3f} [{low:+.3f}, {high:+.3f}]")
    figure = f"{MODEL}, {len(pool.right)} questions of {SAMPLES} attempts, AUC {'; '.join(told)}"
    return judged(KNOWS, all(low > 0 for _, (low, _) in gains.values()), figure, "effect"), gains["end"][1], numbers


def adaptive(scores: np.ndarray, right: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples one after another until one reaches the threshold, then the best: share right and samples, [questions].

    Means over all orders that are rotations of the one of drawing.
    """
    count = scores.shape[1]
    correct, taken = np.zeros(len(scores)), np.zeros(len(scores))
    for shift in range(count):
        order = np.roll(np.arange(count), shift)
        now, good = scores[:, order], right[:, order]
        reached = now >= threshold
        used = np.where(reached.any(1), reached.argmax(1) + 1, count)
        shown = np.where(np.arange(count) < used[:, None], now, -np.inf)
        correct += good[np.arange(len(now)), shown.argmax(1)]
        taken += used
    return correct / count, taken / count


def enough(tune: Pool, name: str) -> float:
    """The highest threshold that takes AIM samples or fewer on average."""
    scores = tune.scores[name, "end"]
    steps = np.quantile(scores, np.linspace(0, 1, 201))
    fits = [value for value in steps if adaptive(scores, tune.right, value)[1].mean() <= AIM]
    return float(max(fits, default=steps[0]))


def adapted(pool: Pool, name: str, threshold: float) -> tuple[Clause, Figures]:
    scores = pool.scores[name, "end"]
    one, taken = adaptive(scores, pool.right, threshold)
    single, best = pool.right.mean(1), _best(scores, pool.right)
    weights = bootstrap_weights(len(single))
    kept = float((one - single).mean() / (best - single).mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = percentiles((weights @ (one - single)) / (weights @ (best - single)))
    gain, (least, most) = paired_bootstrap(best.tolist(), single.tolist())
    used, (fewest, greatest) = float(taken.mean()), bootstrap(taken)
    figure = (
        f"by {name}: {100 * kept:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of the gain of best-of-{SAMPLES} "
        f"({single.mean():.3f} to {best.mean():.3f}, {gain:+.3f} [{least:+.3f}, {most:+.3f}]) with {used:.2f} "
        f"[{fewest:.2f}, {greatest:.2f}] samples"
    )
    holds = least > 0 and low >= KEPT and greatest <= MOST
    numbers: Figures = {"gain_kept": kept, "samples": used, "threshold": threshold}
    numbers |= {"single": float(single.mean()), "best_of_8": float(best.mean())}
    numbers |= {f"best_of_8_{other}": float(_best(pool.scores[other, "end"], pool.right).mean()) for other in OTHERS}
    return judged(ADAPTS, holds, figure, "effect"), numbers


def pruned(pool: Pool, name: str) -> tuple[Clause, Figures]:
    """Best of the better half by the score half-way, against the best of all, where that is better than one attempt.

    A best of all that gains nothing leaves nothing to be lost: then the clause has not been shown.
    """
    half, end, rows = pool.scores[name, "half"], pool.scores[name, "end"], np.arange(len(pool.right))[:, None]
    kept = np.argsort(-half, axis=1, kind="stable")[:, : SAMPLES // 2]
    left, best = _best(end[rows, kept], pool.right[rows, kept]).tolist(), _best(end, pool.right).tolist()
    difference, (low, high) = paired_bootstrap(left, best)
    gain, (least, most) = paired_bootstrap(best, pool.right.mean(1).tolist())
    spent = pool.halves.sum(1) + (pool.tokens - pool.halves)[rows, kept].sum(1)
    share = float(spent.sum() / pool.tokens.sum())
    figure = (
        f"by {name}: {100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}] against the best of all "
        f"{SAMPLES}, with {100 * share:.0f} % of their tokens; that best is {100 * gain:+.1f} "
        f"[{100 * least:+.1f}, {100 * most:+.1f}] points over one attempt"
    )
    holds = least > 0 and low >= -POINT
    return judged(PRUNES, holds, figure, "effect"), {"pruning": difference, "pruned_tokens": share}


def _best(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float [questions]: whether the best-scored attempt is right."""
    return right[np.arange(len(right)), scores.argmax(1)].astype(np.float64)


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "A model's own estimate of an attempt, half-way and at its end, decides how many are drawn and which are finished.",
    "The mean log-probability of the attempt's tokens; best of 8; an evaluation that sends the attempt again.",
    ("effect", "exact"),
    "Running sums of LM-T. The probe learns from questions of their own; which of probe and token is the better judge"
    " of best-of-8, and the threshold, are chosen on others of that split.",
    run,
)
