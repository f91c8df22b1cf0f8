"""System 1, Equivariant Encryption: weights in a keyed basis answer as before, and hide nothing from public weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.evidence.held import holds
from headrace.evidence.stage import FULL_MODEL, RandomWeights, Stage, tiny_spec
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, every_mutant, judged, left_open
from headrace.privacy.extra import check_attacks
from headrace.reason.intervals import ratio_interval
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.program import Normalize, compile_program

if TYPE_CHECKING:
    from headrace.evidence.veil_checks import Compared, GreedyAnswer
    from headrace.evidence.veiled import Pair, Twin

ROW = system(1)
REWRITTEN, ANSWERS, CLOSE, THROUGHPUT, ATTACK = ROW.clauses
MOST_APART, LEAST_RATIO, LEAST_RECOVERY = 1e-3, 0.95, 0.99
SECRET = sha256(b"the tiny pair").digest()
"""Of a key that moves every head and is no run of bytes that any process holds."""
SEEN = 64
"""Bytes of the key or of the token map that are looked for in the server's memory."""
Numbers = dict[str, float | int | str | list[float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """`prompts` of `new` tokens each; `rounds` of throughput, each of `pace` tokens."""

    prompts: int
    new: int
    rounds: int
    pace: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(6, 24, 0, 0), "full": Sizes(50, 64, 16, 48)}


def run(size: Size) -> Evidence:
    """Raises HeadraceError without the extra `privacy`, ModelFileError where a full run has no SmolLM2."""
    check_attacks()
    from headrace.evidence.veiled import Pair, write_tiny

    sizes = SIZES[size]
    with TemporaryDirectory(prefix="headrace-veil-") as name:
        folder = Path(name)
        tiny = Pair.made(write_tiny(folder / "tiny"), folder / "tiny-pair", secret=SECRET)
        pair = tiny if size == "quick" else Pair.made(_published(), folder / "pair")
        clauses, numbers = check_exact(pair, folder / "cache", sizes)
        throughput, interval, ratios = measure(pair, folder, sizes)
        attacked, found = check_attack(pair)
        null_run = mutants(tiny, SIZES["quick"])
    return Evidence(CLAIM.id, (*clauses, throughput, attacked), null_run, numbers | ratios | found, interval, "", size)


def _published() -> Path:
    from headrace.model.catalogue import resolve

    return resolve(FULL_MODEL)


# -- exactness -------------------------------------------------------------------------------------


def check_exact(pair: Pair, cache: Path, sizes: Sizes) -> tuple[list[Clause], Numbers]:
    """What was rewritten, and answers and logits of a server that has the veiled folder and nothing else."""
    plain, found, held = answers(pair, cache, sizes)
    rows = held_against(pair, plain, found)
    clauses = [rewritten(pair), same_answers(rows, sizes, held), close(rows)]
    other = [row for row in rows if row.margin is not None]
    numbers: Numbers = {"prompts": len(rows), "apart": max(row.apart for row in rows), "differing": len(other)}
    return clauses, numbers | {"margins": [row.margin for row in other if row.margin is not None]}


def rewritten(pair: Pair) -> Clause:
    """The folder is whole and this key's; what the key moves is moved, gains are folded, and RoPE is respected."""
    from headrace.model.loading import load_model
    from headrace.privacy.veil.artefact import verify
    from headrace.privacy.veil.errors import SymmetryError
    from headrace.privacy.veil.planner import plan_veil
    from headrace.privacy.veil.transform import Veil
    from headrace.spec.ledger import Ledger

    groups = verify(pair.veiled, pair.key).groups
    loaded = load_model(pair.veiled, Ledger())
    program, layers = compile_program(loaded.spec), range(len(loaded.spec.layers))
    weights = loaded.weights.lease(program.operations)
    gains = [weights[op.gain].numpy() for op in program.operations if isinstance(op, Normalize)]
    folded = all((gain == 1).all() for gain in gains)
    frames = Veil(loaded.spec, pair.key.master).frames
    orders = [[frames[f"layers.{layer}.{part}"].order for layer in layers] for part in ("a", "mlp.m")]
    moved = [sum((order[1:] < order[:-1]).any() for order in found) for found in [[frames["tokens"].order], *orders]]
    try:
        plan_veil(loaded.spec, {"qk": "general"})
        refused = False
    except SymmetryError:
        refused = True
    wanted = {"stream": "orthogonal", "tokens": "permutation", "qk": "planes"}
    rewrote = wanted.items() <= groups.items() and folded and moved[0] == 1 and moved[1] > 0 and moved[2] == len(layers)
    shown = ", ".join(f"{name} {group}" for name, group in groups.items())
    figure = (
        f"{pair.key.name}: {shown}; {len(gains)} norm gains {'all' if folded else 'not all'} 1; ids moved, heads in "
        f"{moved[1]} and units in {moved[2]} of {len(layers)} layers; keys that do not commute with RoPE "
        f"{'refused' if refused else 'granted'}"
    )
    return judged(REWRITTEN, bool(rewrote) and refused, figure)


def answers(pair: Pair, cache: Path, sizes: Sizes) -> tuple[list[GreedyAnswer], list[GreedyAnswer], str]:
    """By the plain engine, by the server through the client; and what the server's memory holds of the key."""
    from headrace.evidence.veil_checks import ask
    from headrace.evidence.veiled import served, stage_of, told_prompts
    from headrace.model.loading import load_model
    from headrace.privacy.veil.client import VeiledEngine
    from headrace.privacy.veil.keyfile import TokenBudget
    from headrace.spec.ledger import Ledger

    tokenizer = pair.tokenizer()
    prompts = told_prompts(tokenizer, sizes.prompts)
    with stage_of(pair.plain, tokenizer) as stage, stage.engine(prefix_cache=True) as engine:
        plain = ask(engine, prompts, sizes.new)
    budget = TokenBudget(pair.veiled.parent / "client.spent", pair.key)
    source = load_model(pair.source, Ledger())
    with served(pair.veiled, cache) as (url, process), VeiledEngine(source, pair.key, budget, url) as client:
        found = ask(client, prompts, sizes.new)
        held = _held(pair, process)
    return plain, found, held


def _held(pair: Pair, process: int) -> str:
    """What is found of the key in a server's memory, and, so that the search can be trusted, in this process'."""
    secret, order = pair.key.master.secret, np.array(pair.tokens.plain(range(pair.key.vocab)))
    secrets = [secret, secret.hex().encode(), order.tobytes()[:SEEN], order.astype(np.int32).tobytes()[:SEEN]]
    there, here = holds(process, secrets), holds(os.getpid(), secrets)
    if there is None or not here:
        return "its memory could not be looked into"
    return "its memory holds the key" if there else "key and token map are in the client's memory, not in its own"


def held_against(
    pair: Pair, plain: Sequence[GreedyAnswer], found: Sequence[GreedyAnswer], **options: Any
) -> list[Compared]:
    """The answers and, in this process, the logits of both folders. `options` as `stage_of` takes them."""
    from headrace.evidence.veil_checks import compare_all
    from headrace.evidence.veiled import stage_of

    with stage_of(pair.plain) as one, stage_of(pair.veiled, **options) as other:
        return compare_all(plain, found, (one.executor, other.executor), pair.tokens)


def same_answers(rows: Sequence[Compared], sizes: Sizes, held: str) -> Clause:
    from headrace.evidence.veil_checks import MARGIN

    wrong = [row for row in rows if row.wrong]
    near = [f"{row.margin:.1e} at token {row.at}" for row in rows if row.margin is not None]
    figure = (
        f"{len(wrong)} of {len(rows)} prompts x {sizes.new} tokens answered otherwise where the plain model's top-2 "
        f"margin exceeds {MARGIN:g}; {len(near)} elsewhere{': ' if near else ''}{', '.join(near[:8])}; {held}"
    )
    return judged(ANSWERS, not wrong and "holds the key" not in held, figure)


def close(rows: Sequence[Compared]) -> Clause:
    apart, count = max(row.apart for row in rows), sum(row.tokens for row in rows)
    return judged(CLOSE, apart < MOST_APART, f"{apart:.1e} over all logits of {count} tokens, in fp32 on both sides")


# -- throughput ------------------------------------------------------------------------------------


def measure(pair: Pair, folder: Path, sizes: Sizes) -> tuple[Clause, tuple[float, float] | None, Numbers]:
    """Decoding in bf16: the plain model as published, the same with a head of its own, and the veiled one."""
    if not sizes.rounds:
        return left_open(THROUGHPUT, NOT_IN_QUICK, "exact"), None, {}
    from headrace.evidence.veil_checks import decode_rates
    from headrace.evidence.veiled import paced

    with paced(staged_in_bf16(pair, folder), pair.tokens) as engines:
        rates = decode_rates(engines, sizes.rounds, sizes.pace)
    other: tuple[Twin, ...] = ("veiled", "untied")
    ratios = {twin: [a / b for a, b in zip(rates[twin], rates["plain"], strict=True)] for twin in other}
    middle, interval = median(ratios["veiled"]), ratio_interval(ratios["veiled"])[1]
    untied, between = ratio_interval(ratios["untied"])
    figure = (
        f"{middle:.3f}x [{interval[0]:.3f}, {interval[1]:.3f}] of the plain model's decoding, median of {sizes.rounds} "
        f"alternations in bf16; a head of its own alone: {untied:.3f}x [{between[0]:.3f}, {between[1]:.3f}]"
    )
    numbers: Numbers = {f"{name}_ratios": values for name, values in ratios.items()}
    return judged(THROUGHPUT, middle >= LEAST_RATIO, figure), interval, numbers | {"ratio": middle}


def staged_in_bf16(pair: Pair, folder: Path) -> Callable[[Twin], Stage]:
    """Writes and loads the twin that is asked for."""
    from headrace.evidence.veiled import stage_of, write_twin

    def staged(twin: Twin) -> Stage:
        path = folder / f"bf16-{twin}"
        write_twin(twin, pair.source, pair.key, path, "bf16")
        return stage_of(path, tokenizer, state_type="fp16")

    tokenizer = pair.tokenizer()
    return staged


# -- the attack, and what has to fail --------------------------------------------------------------


def check_attack(pair: Pair, public: Path | None = None) -> tuple[Clause, Numbers]:
    """Align on this folder. It passes when the attack works: what it recovers is the price of the claim."""
    from headrace.evidence.veil_checks import attack

    found = {name: attack(public or pair.source, pair.veiled, pair.tokens, name == "norms") for name in WAYS}
    told = "; ".join(f"from {WAYS[name]} {recovery.types}, {recovery.cost}" for name, recovery in found.items())
    shares = [recovery.types for name, recovery in found.items() if name == "norms" or recovery.scored > FEW]
    works = all(share.value >= LEAST_RECOVERY for share in shares)
    figure = f"of the token map, with public weights: {told}"
    return judged(ATTACK, works, figure), {f"recovered {name}": got.types.value for name, got in found.items()}


WAYS = {"norms": "row norms and products, then the Gram matrix", "moments": "the tables' moments, then the Gram matrix"}
FEW = 4096
"""Random tables of fewer rows have no moments to speak of."""


def mutants(pair: Pair, sizes: Sizes) -> Clause:
    """A client of the next epoch, a gain that was not folded whole, and an attacker with another model's weights."""
    from headrace.evidence.veil_checks import ask, ask_by_ids
    from headrace.evidence.veiled import stage_of, told_prompts, write_folder
    from headrace.model.tensor import Tensor
    from headrace.privacy.veil.settings import written_settings
    from headrace.privacy.veil.tokens import TokenMap

    prompts, other = told_prompts(None, 3), TokenMap.of(pair.key.rotated())
    with stage_of(pair.plain, pair.tokenizer()) as stage, stage.engine() as engine:
        plain = ask(engine, prompts, sizes.new)
    with stage_of(pair.veiled) as stage, stage.engine() as engine:
        late = ask_by_ids(engine, other, plain, sizes.new)
    foreign, spec = pair.veiled.parent / "foreign", tiny_spec()
    gain = {"norm.weight": Tensor.of("norm.weight", np.full(spec.hidden, 1.01))}
    weights = RandomWeights(spec, seed=1).lease(compile_program(spec).operations)
    write_folder(spec, weights, written_settings(spec), foreign, "f32", {})
    clauses = [
        same_answers(held_against(pair, plain, late), sizes, "not looked into"),
        close(held_against(pair, plain, plain, changed=gain)),
        check_attack(pair, foreign)[0],
    ]
    return every_mutant("Mutants: a token map of the next epoch, a gain left over, another model's weights", clauses)


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "A model in a keyed basis over permuted ids answers as before; whoever has the public weights reads all of it.",
    "The same weights, unveiled, on the same engine.",
    ("exact",),
    "About 8 minutes for a full run: 50 answers of SmolLM2 in fp32 by two engines, 48 rounds of decoding, two attacks.",
    run,
)
