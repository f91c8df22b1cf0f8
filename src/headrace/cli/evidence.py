"""`headrace evidence`: the published systems as claims that can be run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="List, run and publish the claims about published systems.", no_args_is_help=True)

ClaimId = Annotated[str, typer.Argument(help="A claim's id; see `headrace evidence list`.")]
Size = Annotated[Literal["quick", "full"], typer.Option(help="How much of the counts to run.")]
Output = Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")]
