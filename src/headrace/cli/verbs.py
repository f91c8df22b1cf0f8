"""Collects the verbs, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

import headrace
from headrace.cli import (
    audit,
    bench,
    chat,
    evaluate,
    evidence,
    models,
    mpc,
    privacy,
    probe,
    pull,
    run,
    serve,
    solve,
    split,
    strategies,
    trace,
    veil,
)
from headrace.cli.show import EXIT_INTERRUPTED, complain
from headrace.cli.usage import usage_sentence
from headrace.spec.errors import EngineStopped, HeadraceError

EXIT_ENGINE, EXIT_USER = 1, 2
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer shows its subclass only


class Verbs(TyperGroup):
    """Ends a failed verb with one sentence on stderr: exit code 2, or 1 where the engine itself failed."""

    def make_context(self, *words: Any, **named: Any) -> Any:
        return in_own_words(lambda: super(Verbs, self).make_context(*words, **named))

    def invoke(self, ctx: Any) -> Any:
        try:
            return in_own_words(lambda: super(Verbs, self).invoke(ctx))
        except EngineStopped as error:
            complain(str(error))
            raise typer.Exit(EXIT_ENGINE) from error
        except HeadraceError as error:
            complain(str(error))
            raise typer.Exit(EXIT_USER) from error
        except BrokenPipeError as error:
            raise typer.Exit(0) from error
        except OSError as error:
            complain(system_sentence(error))
            raise typer.Exit(EXIT_USER) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(EXIT_INTERRUPTED) from error


def in_own_words(work: Callable[[], Any]) -> Any:
    """Runs it; words that no verb understands end the process as an error of the user's does."""
    try:
        return work()
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        complain(usage_sentence(error))
        raise typer.Exit(EXIT_USER) from error


class Headrace(typer.Typer):
    """Ends without a traceback where Ctrl-C comes before a verb has begun."""

    def __call__(self, *words: Any, **named: Any) -> Any:
        try:
            return super().__call__(*words, **named)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)


def system_sentence(error: OSError) -> str:
    """What the system refused, where, and what to check."""
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    if not isinstance(error.filename, str | bytes):
        return f"The system refused: {reason}; put that right and try again."
    path = os.fsdecode(error.filename)
    return f"Cannot use {path} ({reason}); {_remedy(Path(path))}."


def _remedy(path: Path) -> str:
    for name in ("HEADRACE_CACHE", "XDG_CACHE_HOME"):
        folder = os.environ.get(name)
        if folder and path.is_relative_to(Path(folder).expanduser()):
            return f"set {name} to a folder that you may write"
    return "check that the path exists and that you may use it"


app = Headrace(
    name="headrace",
    cls=Verbs,
    help="Run and serve large language models on hardware you own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

VERBS: Sequence[Callable[..., None]] = (
    run.run,
    chat.chat,
    solve.solve,
    serve.serve,
    pull.pull,
    models.models,
    strategies.strategies,
    probe.probe,
    bench.bench,
)
for verb in VERBS:
    app.command()(verb)
app.command("eval")(evaluate.evaluate)
app.add_typer(trace.app, name="trace")
app.add_typer(evidence.app, name="evidence")
app.add_typer(veil.app, name="veil")
app.add_typer(split.app, name="split")
app.add_typer(privacy.app, name="privacy")
app.add_typer(audit.app, name="audit")
app.add_typer(mpc.app, name="mpc")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headrace {headrace.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass
