"""`headrace mpc`: a model run by parties that hold only secret shares of it and of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headrace.cli.generation import Json
from headrace.cli.show import note, print_json, print_table, progress_counts
from headrace.spec.errors import InvalidRequest

if TYPE_CHECKING:
    from headrace.cli.show import Count
    from headrace.model.loading import LoadedModel
    from headrace.privacy.mpc.session import Kind, Session

app = typer.Typer(
    no_args_is_help=True,
    help="Run a model on secret shares among parties on this machine, to see what it costs and that it agrees.",
)
Model = Annotated[str, typer.Argument(help="A llama-shaped model: catalogue name, .gguf file or model folder.")]
Prompt = Annotated[str, typer.Argument(help="The text to go on from.")]
Protocol = Annotated[
    Literal["aby3", "semi2k"],
    typer.Option(help="Three parties, or two whose first one deals the triples and is trusted to forget them."),
]
Most = Annotated[int, typer.Option("--max-tokens", "-n", min=1, help="New tokens; each one runs the whole text again.")]


@app.callback()
def _group() -> None:
    """Keeps `run` a word of its own, though it is the only verb."""


@app.command()
def run(model: Model, prompt: Prompt, protocol: Protocol = "aby3", tokens: Most = 1, json: Json = False) -> None:
    """Answer greedily on secret shares; prints seconds, messages and bytes of every token."""
    from headrace.model.catalogue import resolve
    from headrace.model.loading import load_model
    from headrace.privacy.mpc.environment import make_worker
    from headrace.privacy.mpc.session import Session
    from headrace.privacy.mpc.weights import shape_of
    from headrace.spec.ledger import Ledger

    loaded = load_model(resolve(model), Ledger())
    if loaded.tokenizer is None:
        raise InvalidRequest(f"{loaded.name} has no tokenizer; give a model that has one.", "model")
    ids, rows = loaded.tokenizer.encode(prompt), []
    shape_of(loaded.spec, len(ids))
    if not ids:
        raise InvalidRequest("The prompt is empty; give a text to go on from.", "prompt")
    with progress_counts(quiet=json) as report, Session(make_worker(note)) as session:
        for number in range(tokens):
            token, told = next_token(session, loaded, ids, protocol, report)
            ids.append(token)
            rows.append({"token": loaded.tokenizer.decode([token])} | told)
            if not json:
                note(f"token {number + 1}: {told['seconds']:.1f} s, {told['bytes'] / 1e6:.1f} MB")
            if token in loaded.tokenizer.eos:
                break
    if json:
        print_json({"model": loaded.name, "protocol": protocol, "text": loaded.tokenizer.decode(ids), "tokens": rows})
        return
    print(loaded.tokenizer.decode(ids))
    print_table(tuple(rows[0]), [[str(value) for value in row.values()] for row in rows])


def next_token(
    session: Session, loaded: LoadedModel, ids: list[int], protocol: Kind, report: Count | None
) -> tuple[int, dict[str, Any]]:
    """One pass over the text so far by parties of its own, and what it cost."""
    from headrace.privacy.mpc import price
    from headrace.privacy.mpc.inference import SecretDecoder
    from headrace.privacy.mpc.session import Setup
    from headrace.privacy.mpc.weights import for_shares, shape_of

    shape = shape_of(loaded.spec, len(ids))
    weights = for_shares(loaded, shape)
    session.open(Setup(protocol))
    decoder = SecretDecoder(session, weights, shape, keep=False)
    token = int(decoder.logits(ids, rows=1, report=report).argmax())
    spent = decoder.spent
    formula = price.total(price.forward(price.PROTOCOLS[protocol], shape, weights.calm, rows=1).values())
    told = {"seconds": round(spent.seconds, 1), "messages": spent.messages, "bytes": spent.bytes}
    return token, told | {"rounds": formula.rounds, "peak_bytes": spent.peak}
