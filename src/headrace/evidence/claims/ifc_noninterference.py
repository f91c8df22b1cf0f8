"""System 25, information flow control: what a principal may not see changes no bit of what they do see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from headrace.engine.engine import Engine
from headrace.evidence import facts as planted
from headrace.evidence.carried import faults
from headrace.evidence.facts import CLOSED, Fact, ask_labelled, ask_plainly, draw_facts, library_of, right
from headrace.evidence.interference import System, Tally, compare_many, pairs_until_seen
from headrace.evidence.leaks import AMPLE, LEAKS, eviction_channel
from headrace.evidence.scripted import scripted_engine
from headrace.evidence.stage import FULL_MODEL, Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import judged
from headrace.reason.intervals import paired_bootstrap, wilson
from headrace.spec.claim import Claim, Clause, Evidence, Size

ROW = system(25)
CARRIED, SAME, AUTHORISED, UNAUTHORISED = ROW.clauses
PAGES = 1280
SMALL_POOL = 30
Numbers = dict[str, float | int | str | list[float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """`pairs` of worlds under quotas, `pool` in one pool; `until`: most pairs a leak may take; `facts` planted."""

    pairs: int
    pool: int
    until: int
    uses: int
    facts: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(6, 3, 40, 4, 16), "full": Sizes(1000, 100, 100, 40, 80)}


def run(size: Size) -> Evidence:
    """Raises HeadraceError without the package `bm25s`, ModelFileError where a full run has no SmolLM2."""
    sizes = SIZES[size]
    with Stage.tiny(pages=PAGES) as stage:
        exact, numbers = check_flows(stage, sizes)
        null_run, caught = leaks(stage, sizes.until)
    effects, interval, more = check_facts(size, sizes.facts)
    return Evidence(CLAIM.id, (*exact, *effects), null_run, numbers | caught | more, interval, "", size)


# -- exact -----------------------------------------------------------------------------------------


def check_flows(stage: Stage, sizes: Sizes) -> tuple[list[Clause], Numbers]:
    """Labels where they have to stand, and pairs of worlds under quotas, in one ample pool and in a crowded one."""
    wrong = [f"{kind}: {fault}" for kind, found in faults(stage).items() for fault in found]
    executor = stage.executor
    quotas = compare_many(executor, range(sizes.pairs), System())
    ample = compare_many(executor, range(sizes.pool), System(AMPLE))
    crowded = compare_many(executor, range(sizes.pool), System(SMALL_POOL))
    bits = {f"bits_{name}": eviction_channel(stage, sizes.uses, name == "quotas") for name in ("one_pool", "quotas")}
    labels, off = quotas.results + ample.results, quotas.wrong_labels + ample.wrong_labels
    whole = not wrong and not off and labels > 0
    clauses = [
        judged(CARRIED, whole, f"{len(wrong)} faults{_first(wrong)}; {off} of {labels} outputs without their join"),
        judged(SAME, _equal(quotas, ample, crowded, bits), _figure(quotas, ample, crowded, bits, stage)),
    ]
    counts: Numbers = {"pairs": quotas.pairs, "seen": quotas.observations, "cached_tokens": quotas.cached}
    counts |= {"crowded_pairs": crowded.pairs, "crowded_differing": crowded.differing}
    return clauses, counts | bits | {"differing": quotas.differing + ample.differing}


def _equal(quotas: Tally, ample: Tally, crowded: Tally, bits: dict[str, float]) -> bool:
    """Nothing differs under quotas or without evictions; with them hit counters alone may; and pages were hit."""
    none = quotas.differing == ample.differing == crowded.beyond_counters == 0
    return none and bits["bits_quotas"] == 0 and quotas.cached > 0


def _figure(quotas: Tally, ample: Tally, crowded: Tally, bits: dict[str, float], stage: Stage) -> str:
    return (
        f"{quotas.differing} of {quotas.pairs} lattices differ under page quotas ({quotas.observations} things seen, "
        f"{quotas.cached} cached tokens) and {ample.differing} of {ample.pairs} in one ample pool; in a pool of "
        f"{SMALL_POOL} pages {crowded.differing} of {crowded.pairs} show other hit counters and "
        f"{crowded.beyond_counters} anything else; prime and probe tells {bits['bits_one_pool']:.2f} bit a use in one "
        f"pool, {bits['bits_quotas']:.2f} under quotas; {stage.name}, bit-exact: {stage.executor.guarantees.bit_exact}"
    )


def leaks(stage: Stage, until: int) -> tuple[Clause, Numbers]:
    """Every leaky system must be told from the sound one, by the same comparison."""
    found = {name: pairs_until_seen(stage.executor, range(until), leaky) for name, leaky in LEAKS.items()}
    missed = [name for name, pairs in found.items() if pairs is None]
    told = "; ".join(f"{name}: seen after {pairs or f'none of {until}'} pairs" for name, pairs in found.items())
    numbers: Numbers = {f"pairs until {name}": pairs or -1 for name, pairs in found.items()}
    return Clause("Mutants: six systems that leak", "failed" if missed else "passed", told), numbers


# -- effects ---------------------------------------------------------------------------------------


def check_facts(size: Size, count: int) -> tuple[list[Clause], tuple[float, float], Numbers]:
    """The closed facts put to an insider, an outsider, a search without labels, and the model alone."""
    facts = draw_facts(Random(25), count)
    closed = [fact for fact in facts if fact.label == CLOSED]
    with _reader(size) as (engine, name):
        told = told_about(engine, facts, closed)
    shares = {who: right(answers, closed) for who, answers in told.items()}
    gain, interval = paired_bootstrap(shares["insider"], shares["zero-shot"])
    same = told["insider"] == told["everything"]
    figure = (
        f"{_of(shares['insider'])} right, {_of(shares['everything'])} by a search without labels, answers "
        f"{_equally(same)}; {gain:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}] over zero-shot; {name}"
    )
    authorised = judged(AUTHORISED, same and interval[0] > 0, figure, "effect")
    clauses = [authorised, _blind(told["outsider"] == told["without"], shares["outsider"], shares["zero-shot"], name)]
    return clauses, interval, {f"right {who}": found for who, found in shares.items()}


def _blind(same: bool, outsider: list[float], alone: list[float], name: str) -> Clause:
    """An outsider is as good as the model alone, and is told what a library without the closed passages tells."""
    apart, (low, high) = paired_bootstrap(outsider, alone)
    most = wilson(sum(outsider), len(outsider))[1]
    figure = (
        f"{_of(outsider)} right (at most {most:.2f}), zero-shot {_of(alone)}: {apart:+.2f} [{low:+.2f}, {high:+.2f}]; "
        f"answers {_equally(same)} to those of a library without the closed passages; {name}"
    )
    return judged(UNAUTHORISED, same and low <= 0 <= high, figure, "effect")


def _of(shares: list[float]) -> str:
    return f"{int(sum(shares))} of {len(shares)}"


def _equally(same: bool) -> str:
    return "equal" if same else "not equal"


def told_about(engine: Engine, facts: list[Fact], closed: list[Fact]) -> dict[str, list[str]]:
    """What each reader is told about the closed facts."""
    layout, library = planted.sentence_layout, library_of(facts)
    without = library_of([fact for fact in facts if fact.label != CLOSED])
    return {
        "everything": ask_plainly(engine, facts, closed, layout),
        "insider": ask_labelled(engine, library, "insider", closed, layout),
        "outsider": ask_labelled(engine, library, "outsider", closed, layout),
        "without": ask_labelled(engine, without, "outsider", closed, layout),
        "zero-shot": ask_plainly(engine, [], closed, layout),
    }


@contextmanager
def _reader(size: Size) -> Iterator[tuple[Engine, str]]:
    """A scripted copier for a quick run, SmolLM2 for a full one."""
    if size == "quick":
        with scripted_engine(planted.copier()) as engine:
            yield engine, "a scripted reader that copies"
        return
    with Stage.named(FULL_MODEL, threads=1) as stage, stage.engine(prefix_cache=True) as engine:
        yield engine, f"{stage.name}, one passage read"


def _first(faults: list[str]) -> str:
    return f", first: {faults[0]}" if faults else ""


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Labels travel with requests, passages, cached pages, adapters, tools and logs; what may not be read is not felt.",
    "The same search and model without labels, and the model without passages.",
    ("exact", "effect"),
    "About 5 minutes for a full run, most of it 1,000 pairs of worlds on a random 2-layer llama of width 64.",
    run,
)
