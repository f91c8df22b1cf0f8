"""The veil: a model in a keyed basis, over permuted token ids, that computes exactly what it did (arXiv 2502.01013).

It is obfuscation. Who holds the public weights beside the veiled ones finds the whole key in seconds; who sees
only token ids reads frequent ones after a few thousand. What it hides is what a log, a cache or a screen shows.
"""
