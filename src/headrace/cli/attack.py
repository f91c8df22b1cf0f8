"""`headrace privacy attack`: attacks on a veiled model, its traffic and its caches, for the one who runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import generation as g
from headrace.cli.attacked import (
    Ending,
    ScoringKey,
    check_threshold,
    file_ids,
    known_ids,
    lines,
    opened,
    options,
    served_ids,
    token_map,
    true_tokens,
    truth_by,
    wire_ids,
)
from headrace.cli.flags import with_flags
from headrace.cli.show import progress_bars
from headrace.privacy.extra import check_attacks
from headrace.spec.errors import InvalidRequest

app = typer.Typer(
    no_args_is_help=True,
    help="Attack a veiled deployment of your own: what is recovered, with its 95 % interval, chance and cost."
    " With --key it is scored by the key, which no attack sees; without, by what the attack is sure of, of which"
    " there is no --threshold.",
)
Model = Annotated[str, typer.Argument(help="The public model: catalogue name, .gguf file or model folder.")]
Folder = Annotated[Path, typer.Argument(help="Folder that `veil export` wrote.")]
Wire = Annotated[
    Path, typer.Argument(help="Ids on the wire: .npy, or .ids with numbers. Another file is text, veiled by --key.")
]
Known = Annotated[
    list[Path], typer.Option("--known", help="Text that the attacker has, or its ids (.npy, .ids); may be repeated.")
]
Told = Annotated[
    Path | None, typer.Option(help="Text (or its ids) of the beginning of the traffic, told the attacker.")
]
Count = Annotated[int, typer.Option(min=1, help="Without --told: so many first tokens are told, by --key.")]
Veiled = Annotated[Path | None, typer.Option(help="Veiled folder, whose weights the attacker has as well.")]
Ids = Annotated[Path | None, typer.Option(help="Ids on the wire of the text that was served (default: ids at random).")]
Threads = Annotated[int | None, typer.Option(min=1, help="Compute threads (default: physical cores).")]
Seed = Annotated[int, typer.Option(callback=g.seed_in_range, help="Of the ids at random, or of the draws.")]


@app.command()
@with_flags(scoring=ScoringKey, ending=Ending)
def align(
    model: Model,
    folder: Folder,
    scoring: ScoringKey = ScoringKey(),
    ending: Ending = Ending(),
) -> None:
    """Public weights against a veiled folder: the token map, the rotation and each layer's keys."""
    check_attacks()
    check_threshold(ending.threshold, scoring.key is not None)
    from headrace.privacy.attacks.on_weights import align_folder

    public, deployed = opened(model), opened(str(folder))
    ending.finish(align_folder(public, deployed, scoring.truth(deployed)))


@app.command()
@with_flags(scoring=ScoringKey, ending=Ending)
def bigram(
    model: Model,
    traffic: Wire,
    known: Known,
    scoring: ScoringKey = ScoringKey(),
    ending: Ending = Ending(),
) -> None:
    """Ids on the wire alone, against text of the attacker's own. Of MODEL only the tokenizer is used."""
    check_attacks()
    check_threshold(ending.threshold, scoring.key is not None)
    from headrace.privacy.attacks.on_traffic import bigram_traffic

    public, held = opened(model), scoring.held()
    wire, own = wire_ids(traffic, public, held), known_ids(known, public)
    ending.finish(bigram_traffic(wire, own, public.spec.vocab, token_map(held)))


@app.command("known-pairs")
@with_flags(scoring=ScoringKey, ending=Ending)
def known_pairs(
    model: Model,
    traffic: Wire,
    known: Known = [],  # noqa: B006
    told: Told = None,
    count: Count = 256,
    veiled: Veiled = None,
    scoring: ScoringKey = ScoringKey(),
    ending: Ending = Ending(),
) -> None:
    """Traffic whose beginning the attacker knows, with texts of its own (--known) or with weights (--veiled)."""
    check_attacks()
    check_threshold(ending.threshold, scoring.key is not None)
    from headrace.privacy.attacks.known_pairs import pairs_of
    from headrace.privacy.attacks.on_traffic import told_traffic
    from headrace.privacy.attacks.on_weights import told_folder

    if bool(known) == (veiled is not None):
        raise InvalidRequest("Known pairs need something to go on: give either --known or --veiled.", "known")
    public, held = opened(model), scoring.held()
    wire = wire_ids(traffic, public, held)
    beginning = file_ids(told, public) if told is not None else true_tokens(wire[:count], held)
    pairs = pairs_of(wire[: len(beginning)], beginning)
    if veiled is not None:
        deployed = opened(str(veiled))
        recovery = told_folder(public, deployed, pairs, None if held is None else truth_by(deployed, held))
    else:
        recovery = told_traffic(wire, known_ids(known, public), pairs, public.spec.vocab, token_map(held))
    ending.finish(recovery)


@app.command()
@with_flags(scoring=ScoringKey, ending=Ending)
def oracle(
    model: Model,
    folder: Folder,
    known: Known,
    tokens: Annotated[int, typer.Option(min=2, help="Ids that the veiled model writes.")] = 30_000,
    seed: Seed = 0,
    threads: Threads = None,
    scoring: ScoringKey = ScoringKey(),
    ending: Ending = Ending(),
) -> None:
    """The veiled weights alone write traffic from no prompt, which falls as the victim's would."""
    check_attacks()
    check_threshold(ending.threshold, scoring.key is not None)
    from headrace.privacy.attacks.oracle import oracle as attack

    public, deployed = opened(model), opened(str(folder))
    mapped, own = scoring.token_map(deployed), known_ids(known, public)
    with g.loaded_engine(str(folder), options(threads), quiet=ending.json) as engine:
        found = attack(engine, own, tokens, deployed.first_id(), mapped, seed=seed)
    ending.finish(found)


@app.command()
@with_flags(scoring=ScoringKey, ending=Ending)
def hidden(
    model: Model,
    folder: Folder,
    ids: Ids = None,
    tokens: Annotated[int, typer.Option(min=1, help="So many first ids are read.")] = 16,
    told: Annotated[int, typer.Option(min=0, help="First tokens that are known by --key, as a template's are.")] = 0,
    layer: Annotated[int, typer.Option(min=1, help="Whose output is seen.")] = 1,
    seed: Seed = 0,
    threads: Threads = None,
    scoring: ScoringKey = ScoringKey(),
    ending: Ending = Ending(),
) -> None:
    """A text from hidden states that a server kept: the vocabulary is tried at each position."""
    check_attacks()
    check_threshold(ending.threshold, scoring.key is not None)
    from headrace.privacy.attacks.on_states import hidden_states

    public, deployed = opened(model), opened(str(folder))
    mapped, wire = scoring.token_map(deployed), served_ids(ids, tokens, deployed, seed)
    if told and mapped is None:
        raise InvalidRequest("What the first tokens are is known by the key; give --key, or leave --told out.", "told")
    first = [] if mapped is None else mapped[wire[:told]].tolist()
    ending.finish(hidden_states(public, deployed, wire, layer, first, mapped, threads))


@app.command()
@with_flags(scoring=ScoringKey, ending=Ending)
def kv(
    model: Model,
    folder: Folder,
    ids: Ids = None,
    tokens: Annotated[int, typer.Option(min=1, help="So many first ids are read.")] = 64,
    seed: Seed = 0,
    scoring: ScoringKey = ScoringKey(),
    ending: Ending = Ending(),
) -> None:
    """A text from the first layer's keys in the KV cache, by the lengths of their rotary planes."""
    check_attacks()
    check_threshold(ending.threshold, scoring.key is not None)
    from headrace.privacy.attacks.on_states import cached_keys

    public, deployed = opened(model), opened(str(folder))
    mapped, wire = scoring.token_map(deployed), served_ids(ids, tokens, deployed, seed)
    ending.finish(cached_keys(public, deployed, wire, mapped))


@app.command()
@with_flags(ending=Ending)
def inversion(
    model: Annotated[str, typer.Argument(help="The model that embeds: minilm-l6, or another.")],
    texts: Annotated[Path, typer.Argument(help="Texts whose vectors are stored, one a line.")],
    known: Annotated[list[Path], typer.Option("--known", help="Lines that the attacker has had embedded.")],
    threads: Threads = None,
    ending: Ending = Ending(),
) -> None:
    """Vectors of a store, veiled or not: which tokens their texts had."""
    check_attacks()
    from headrace.engine.llm import LLM
    from headrace.privacy.attacks.vectors import invert

    theirs, own = lines(texts), [line for path in known for line in lines(path)]
    with progress_bars(quiet=ending.json) as report, LLM(model, options(threads), report) as llm:
        stored, own_vectors, tokenizer = llm.embed(theirs), llm.embed(own), llm.engine.tokenizer
        assert tokenizer is not None, "the model has embedded text"
        tokens, own_tokens = ([tokenizer.encode(line, bos=False) for line in some] for some in (theirs, own))
        recovery = invert(stored, own_vectors, tokens, own_tokens, llm.engine.spec.vocab)
    ending.finish(recovery)
