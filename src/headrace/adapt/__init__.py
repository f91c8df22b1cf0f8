"""Recipes that train small models, low-rank adapters and value heads (extra: torch)."""
