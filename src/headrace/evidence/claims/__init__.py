"""One module a claim; each holds a `CLAIM`."""
