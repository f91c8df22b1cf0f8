"""`python -m headrace.cli` is `headrace`."""

from headrace.cli.main import app

app(prog_name="headrace")
