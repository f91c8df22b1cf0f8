"""`headrace veil`: keys, veiled models, and the proxy that speaks to a server of one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.keys import Opening, Passphrase, first_line, lock
from headrace.cli.show import note, print_json, progress_bars, progress_counts
from headrace.privacy.extra import check_veil
from headrace.server.config import ServerConfig
from headrace.spec.errors import HeadraceError, InvalidRequest

if TYPE_CHECKING:
    from headrace.privacy.veil.keyfile import ClientKey

app = typer.Typer(
    no_args_is_help=True,
    help="Obfuscate a model's weights and token ids by a key: for logs, caches and screens. It is no encryption:"
    " whoever holds the public weights finds the key.",
)
Model = Annotated[str, typer.Argument(help="The plain model: catalogue name, .gguf file or model folder.")]
KeyFile = Annotated[Path, typer.Option("--key", help="Key file that `veil keygen` wrote.")]
KeyArgument = Annotated[Path, typer.Argument(help="Key file that `veil keygen` wrote.")]
Folder = Annotated[Path, typer.Argument(help="Folder that `veil export` wrote.")]
Recipients = Annotated[
    list[str], typer.Option("--recipient", help="Lock the key to this age recipient (age1…); may be repeated.")
]
Target = Annotated[Path, typer.Option("--out", help="Folder to write; it must be empty or new.")]
NewKey = Annotated[Path, typer.Option("--out", help="Key file to write.")]
Budget = Annotated[
    int, typer.Option(min=1, help="Tokens that may pass under one token map; no count hides frequent ones.")
]
Dtype = Annotated[Literal["f32", "bf16", "f16"], typer.Option(help="How weights are stored.")]
Condition = Annotated[float, typer.Option(help="Most condition number of a key's matrices.")]
Url = Annotated[str, typer.Option(help="Base of the veiled server, up to /v1.")]
Foreign = Annotated[
    bool,
    typer.Option(
        "--foreign", help="The server is another program than headrace serve: nothing says whose key its model has."
    ),
]
UpstreamKey = Annotated[Path | None, typer.Option(help="File with the API key of the veiled server.")]


@app.command()
def keygen(
    model: Model,
    out: NewKey,
    recipient: Recipients = [],  # noqa: B006
    passphrase_file: Passphrase = None,
    budget: Budget = 3_000,
    json: g.Json = False,
) -> None:
    """Make a key for a model, locked to age recipients or by a passphrase."""
    from headrace.model.catalogue import resolve

    check_veil()
    from headrace.privacy.veil.keyfile import write_key
    from headrace.privacy.veil.source import new_key

    key = new_key(resolve(model), budget)
    write_key(out, key, lock(recipient, passphrase_file))
    tell(key, out, json)


@app.command()
@with_flags(opening=Opening)
def rotate(
    key: KeyArgument,
    recipient: Recipients = [],  # noqa: B006
    json: g.Json = False,
    opening: Opening = Opening(),
) -> None:
    """Put a key of the next epoch in the key file's place: another token map and other matrices."""
    check_veil()
    from headrace.privacy.veil.keyfile import Lock, read_key, write_key

    opener = opening.opener()
    held, _ = read_key(key, opener)
    if opening.identity is not None and not recipient:
        raise InvalidRequest("A key that an identity opens is locked anew; give --recipient.", "recipient")
    fresh = held.rotated()
    write_key(key, fresh, Lock(tuple(recipient), None if recipient else opener.passphrase), replace_old=True)
    tell(fresh, key, json)


@app.command()
@with_flags(opening=Opening)
def export(
    model: Model,
    key: KeyFile,
    out: Target,
    dtype: Dtype = "f32",
    condition: Condition = 3.0,
    json: g.Json = False,
    opening: Opening = Opening(),
) -> None:
    """Write the veiled model: safetensors, config.json and a signed veil.json, no tokenizer."""
    from headrace.model.catalogue import resolve

    check_veil()
    from headrace.privacy.veil.export import Export
    from headrace.privacy.veil.export import export as write

    how = Export(dtype, condition)
    held, _ = opening.unlocked(key)
    with progress_counts(quiet=json) as report:
        manifest = write(resolve(model), held, out, how, report)
    if json:
        print_json(asdict(manifest))
        return
    print(out)
    note(manifest.profile)


@app.command()
@with_flags(opening=Opening)
def verify(
    folder: Folder,
    key: Annotated[Path | None, typer.Option(help="Key file, to check that the model is this key's.")] = None,
    json: g.Json = False,
    opening: Opening = Opening(),
) -> None:
    """Check every file of a veiled model against its signature; with --key also whose it is."""
    check_veil()
    from headrace.privacy.veil.artefact import verify as check

    manifest = check(folder, None if key is None else opening.unlocked(key)[0])
    if json:
        print_json(asdict(manifest))
        return
    whose = "signed by whom veil.json names" if key is None else "made with this key"
    print(f"{folder}: {len(manifest.files)} files are whole and {whose}, epoch {manifest.epoch}.")


@app.command()
@with_flags(opening=Opening, server=ServerConfig)
def proxy(
    model: Model,
    key: KeyFile,
    url: Url = "http://127.0.0.1:8000/v1",
    upstream_key: UpstreamKey = None,
    foreign: Foreign = False,
    opening: Opening = Opening(),
    server: ServerConfig = ServerConfig(),
) -> None:
    """Serve the plain model's API here by a server that only sees veiled token ids. The key stays here."""
    from headrace.model.catalogue import resolve
    from headrace.model.loading import load_model
    from headrace.server.serve import serve
    from headrace.spec.ledger import Ledger

    check_veil()
    if server.labels is not None:
        raise HeadraceError("--labels is for headrace serve: the veiled server shares pages as it likes; leave it out.")
    from headrace.privacy.veil.client import VeiledEngine

    held, budget = opening.unlocked(key)
    with progress_bars() as report:
        plain = load_model(resolve(model, report), Ledger())
    secret = None if upstream_key is None else first_line(upstream_key)
    with VeiledEngine(plain, held, budget, url, secret, foreign) as engine:
        if engine.unchecked:
            note(engine.unchecked)
        config = replace(server, model_name=server.model_name or engine.model_name)
        code = serve(engine, config, ready=lambda at: note(f"{config.model_name} answers at {at}/v1"))
    if code:
        raise typer.Exit(code)


def tell(key: ClientKey, path: Path, as_json: bool) -> None:
    facts: dict[str, Any] = {"path": str(path), "model": key.name, "key_id": key.master.key_id()}
    facts |= {"epoch": key.master.epoch, "tokens": key.budget}
    if as_json:
        print_json(facts)
        return
    print(path)
    note(f"Key {facts['key_id'][:16]} of epoch {key.master.epoch} for {key.name}, good for {key.budget:,} tokens.")
