"""System 65, adaptive inference-time compute: does a model know, also half-way, whether its attempt will be right?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.evidence.attempt_pool import PLACES, Patience, Pool, adaptive, best, enough
from headrace.evidence.self_evaluation import attempts, auc_gain, looks
from headrace.evidence.self_teaching import ask, drawn, taught
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.evaluation.probing import recipe_of
from headrace.reason.evaluation.states import read_examples
from headrace.reason.intervals import Interval, bootstrap, bootstrap_weights, paired_bootstrap, percentiles
from headrace.reason.scorers.probe import Probe
from headrace.reason.tasks.arith import CHECK, DIALS, VERDICTS
from headrace.reason.tasks.fixtures import fixture
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.registry import items
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.events import StepEvent
from headrace.spec.sampling import Sampling, Stop

ROW = system(65)
KNOWS, ADAPTS, PRUNES, CHEAP = ROW.clauses
MODEL, STATE, WIDTH, STEPS = "lm-t-small", "hidden:3", 64, 2000
"""The state was chosen on questions of the split tune."""
ADAPTER, JUDGES = "adapter", ("adapter", "verdict", "probe")
"""The token of an adapter taught for it; the verdict that the model was trained to give; a probe of its state."""
SAMPLES, MOST, AIM = 8, 2.0, 1.8
"""Adaptive sampling is set for AIM samples on other questions, and judged by MOST."""
KEPT, POINT, TEMPERATURE = 0.7, 0.01, 0.8

Figures = dict[str, float | int | str | list[float]]
Look = Callable[[Engine, SequenceHandle], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Questions of the split tune to train a probe on, to choose by and to teach on, and of eval."""

    probe: int
    choosing: int
    taught: int
    evaluated: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(0, 0, 0, 0), "full": Sizes(400, 300, 1500, 800)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    with Stage.tiny() as stage, stage.engine() as engine:
        prompt = list(range(3, 40))
        cheap, numbers = cost(engine, prompt, lambda engine, sequence: one_token(sequence, [9], [5]))
        again, _ = cost(engine, prompt, sent_again)
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
    sequence.read(STATE).result()


def asked_twice(engine: Engine, sequence: SequenceHandle) -> None:
    """The plain model's look: its question behind the attempt, and the log-probabilities of both verdicts."""
    (fork,) = sequence.fork(1, aside=True)
    with fork:
        fork.append(CHECK)
        fork.score(list(VERDICTS)).result()


def one_token(
    sequence: SequenceHandle, question: str | Sequence[int] = CHECK, yes: str | Sequence[int] = VERDICTS[0]
) -> None:
    """The adapter's look."""
    with ask(sequence, question) as fork:
        fork.score([yes]).result()


LOOKS: dict[str, Look] = {
    "adapter": lambda engine, sequence: one_token(sequence),
    "verdict": asked_twice,
    "probe": read,
}


def sent_again(engine: Engine, sequence: SequenceHandle) -> None:
    """A look as a new request without what the first one left."""
    with engine.open_now([3, *sequence.tokens]) as other:
        other.read().result()


def cost(engine: Engine, prompt: Sequence[int], look: Look, adapter: str | None = None) -> tuple[Clause, Figures]:
    """Positions that the engine computes more, for a look half-way and one at the end of an attempt of 48 tokens."""
    without, pages = _positions(engine, prompt, lambda engine, sequence: None, adapter)
    with_looks, more = _positions(engine, prompt, look, adapter)
    each = (with_looks - without) / 2
    figure = (
        f"{each:g} positions a look, half-way and at the end, behind {len(prompt) + 24} and {len(prompt) + 48} tokens; "
        f"{more - pages} pages more at most"
    )
    return judged(CHEAP, each <= 1 and more - pages <= 1, figure), {"positions_a_look": each}


def _positions(engine: Engine, prompt: Sequence[int], look: Look, adapter: str | None) -> tuple[int, int]:
    """Computed by the engine's own count, and the most pages that were held."""
    seen: list[StepEvent] = []
    engine.clear_cache()
    stop = engine.events.listen(seen.append)
    try:
        with engine.open_now(list(prompt), seed=1, adapter=adapter) as sequence:
            for _ in range(2):
                sequence.extend(Stop(tokens=24, ignore_eos=True)).result()
                look(engine, sequence)
    finally:
        stop()
    computed = sum(tokens for event in seen for _, _, tokens in event.sequences)
    return computed, max(event.pages_used for event in seen)


# -- what the looks are worth ----------------------------------------------------------------------


def measured(sizes: Sizes) -> tuple[list[Clause], Clause, Interval, Figures]:
    steps, largest = DIALS["sums"]
    task, base = f"arith:sums(steps={steps}, largest={largest}", fixture(MODEL)
    asked = items(f"{task})", sizes.evaluated)
    tune = items(f"{task}, split='tune')", sizes.probe + sizes.choosing + sizes.taught)
    learn, rest = tune[: sizes.probe], tune[sizes.probe :]
    choose, teach = rest[: sizes.choosing], rest[sizes.choosing :]
    with Engine.load(base) as engine:
        engine.add_adapter(ADAPTER, taught(engine, base, teach, TEMPERATURE, steps // 2))
        probe = learned(engine, learn)
        chosen, found = (pools(engine, part, probe, steps, seed) for part, seed in ((choose, 2), (asked, 1)))
        name = max(JUDGES, key=lambda name: chosen[name].best(name).mean())
        cheap, numbers = priced(engine, engine.encode(asked[0].task.prompt()), name)
    knows, interval, aucs = known(found, name)
    adapts, samples = adapted(found[name], name, patience_of(chosen[name], name))
    _, unasked = adapted(found[name], "logprob", patience_of(chosen[name], "logprob"))
    samples |= {f"{figure}_by_logprob": value for figure, value in unasked.items()}
    prunes, pruning = pruned(found[name], name)
    numbers |= {"chosen": name} | aucs | samples | pruning | worth(chosen, "tune") | worth(found, "eval")
    return [knows, adapts, prunes], cheap, interval, numbers


def priced(engine: Engine, prompt: Sequence[int], name: str) -> tuple[Clause, Figures]:
    """The price of every judge's look; the clause is that of the judge `name`."""
    found = {one: cost(engine, prompt, look, ADAPTER if one == ADAPTER else None) for one, look in LOOKS.items()}
    figure = "; ".join(f"{one}: {clause.figure}" for one, (clause, _) in found.items())
    numbers = Figures({f"positions_{one}": figures["positions_a_look"] for one, (_, figures) in found.items()})
    return judged(CHEAP, found[name][0].status == "passed", figure), numbers


def learned(engine: Engine, asked: Sequence[Item]) -> Probe:
    """A probe of the plain model's attempts at the questions."""
    from headrace.adapt.head_training import train_head

    made = attempts(engine, asked, SAMPLES, TEMPERATURE, seed=2)
    examples = asyncio.run(read_examples(engine, {item.id: item for item in asked}, made, STATE, concurrency=16))
    recipe = recipe_of(examples, engine.model_name, STATE, WIDTH, steps=STEPS)
    with TemporaryDirectory() as folder:
        return Probe(train_head(recipe, examples.states, examples.labels, Path(folder) / "probe"))


def pools(engine: Engine, asked: Sequence[Item], probe: Probe, steps: int, seed: int) -> dict[str, Pool]:
    """By judge: the adapter's is of attempts that were drawn with it, the others' of the plain model's."""
    plain = attempts(engine, asked, SAMPLES, TEMPERATURE, seed)
    looked = Pool.plain(looks(engine, {item.id: item for item in asked}, plain, steps, STATE), probe, SAMPLES)
    own = drawn(engine, asked, SAMPLES, Sampling(temperature=TEMPERATURE), seed, steps // 2, ADAPTER)
    return {"adapter": Pool.taught(own, ADAPTER, SAMPLES), "verdict": looked, "probe": looked}


def worth(found: Mapping[str, Pool], split: str) -> Figures:
    """How often one attempt is right and the best of all by each score, with the adapter and without."""
    numbers = Figures()
    for kind, pool in (("adapter", found["adapter"]), ("plain", found["probe"])):
        numbers[f"{split}_{kind}_single"] = float(pool.right.mean())
        numbers |= {f"{split}_{kind}_best_by_{name}": float(pool.best(name).mean()) for name in pool.names}
    return numbers


def known(found: Mapping[str, Pool], name: str) -> tuple[Clause, Interval, Figures]:
    """AUC against the log-probability's over the same attempts."""
    pool, told, numbers = found[name], [], Figures()
    gains = {place: auc_gain(pool.scores[name, place], pool.scores["logprob", place], pool.right) for place in PLACES}
    for place in PLACES:
        with_adapter, plain = (
            {one: part.auc(one, place) for one in part.names} for part in (found["adapter"], found["probe"])
        )
        numbers |= {f"auc_{one}_{place}": value for one, (value, _) in plain.items()}
        numbers |= {f"auc_adapter_{place}": with_adapter["adapter"][0]}
        numbers |= {f"auc_logprob_with_adapter_{place}": with_adapter["logprob"][0]}
        gain, (low, high) = gains[place]
        told.append(
            f"{place}: {_listed(with_adapter)} of attempts with the adapter, {_listed(plain)} of the plain model's; "
            f"{name} over log-probability of the same {gain:+.3f} [{low:+.3f}, {high:+.3f}]"
        )
    figure = f"{MODEL}, {len(pool.right)} questions of {SAMPLES} attempts, AUC {'; '.join(told)}"
    return judged(KNOWS, all(low > 0 for _, (low, _) in gains.values()), figure, "effect"), gains["end"][1], numbers


def _listed(found: Mapping[str, tuple[float, Interval]]) -> str:
    return ", ".join(f"{one} {value:.3f} [{low:.3f}, {high:.3f}]" for one, (value, (low, high)) in found.items())


def patience_of(chosen: Pool, name: str) -> Patience:
    """For best of 8 by the score `name`, from questions of the split tune."""
    return enough(chosen.scores[name, "end"], chosen.right, AIM)


def adapted(pool: Pool, name: str, patience: Patience) -> tuple[Clause, Figures]:
    one, taken = adaptive(pool.scores[name, "end"], pool.right, patience)
    single, whole = pool.right.mean(1), pool.best(name)
    weights = bootstrap_weights(len(single))
    kept = float((one - single).mean() / (whole - single).mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = percentiles((weights @ (one - single)) / (weights @ (whole - single)))
    gain, (least, most) = paired_bootstrap(whole.tolist(), single.tolist())
    used, (fewest, greatest) = float(taken.mean()), bootstrap(taken)
    others = "".join(f"; best of {SAMPLES} by {one} {pool.best(one).mean():.3f}" for one in pool.names if one != name)
    figure = (
        f"by {name}: {100 * kept:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of the gain of best-of-{SAMPLES} "
        f"({single.mean():.3f} to {whole.mean():.3f}, {gain:+.3f} [{least:+.3f}, {most:+.3f}]) with {used:.2f} "
        f"[{fewest:.2f}, {greatest:.2f}] samples, {patience.most} at most{others}"
    )
    holds = least > 0 and low >= KEPT and greatest <= MOST
    numbers: Figures = {
        "gain_kept": kept,
        "samples": used,
        "adaptive": float(one.mean()),
        "good": patience.good,
        "most": patience.most,
    }
    return judged(ADAPTS, holds, figure, "effect"), numbers


def pruned(pool: Pool, name: str) -> tuple[Clause, Figures]:
    """Best of the better half by the score half-way, against the best of all, where that is better than one attempt.

    A best of all that gains nothing leaves nothing to be lost: then the clause has not been shown.
    """
    half, end, rows = pool.scores[name, "half"], pool.scores[name, "end"], np.arange(len(pool.right))[:, None]
    kept = np.argsort(-half, axis=1, kind="stable")[:, : SAMPLES // 2]
    left, whole = best(end[rows, kept], pool.right[rows, kept]).tolist(), pool.best(name).tolist()
    difference, (low, high) = paired_bootstrap(left, whole)
    gain, (least, most) = paired_bootstrap(whole, pool.right.mean(1).tolist())
    spent = pool.halves.sum(1) + (pool.tokens - pool.halves)[rows, kept].sum(1)
    share = float(spent.sum() / pool.tokens.sum())
    figure = (
        f"by {name}: {100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}] against the best of all "
        f"{SAMPLES}, with {100 * share:.0f} % of their tokens; that best is {100 * gain:+.1f} "
        f"[{100 * least:+.1f}, {100 * most:+.1f}] points over one attempt"
    )
    holds = least > 0 and low >= -POINT
    return judged(PRUNES, holds, figure, "effect"), {"pruning": difference, "pruned_tokens": share}


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "A model's own estimate of an attempt, half-way and at its end, decides how many are drawn and which are finished.",
    "The mean log-probability of the attempt's tokens; best of 8; an evaluation that sends the attempt again.",
    ("effect", "exact"),
    "Running sums of LM-T. The adapter and the probe learn from questions of their own; which judge is the best of"
    " best-of-8, the score at which adaptive sampling stops and its most samples are chosen on others of that split.",
    run,
)
