"""The command line: one Typer app, one small file a verb; nothing heavy is imported before a verb runs."""
