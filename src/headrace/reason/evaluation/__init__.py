"""Evaluation: every sample is stored once, and every figure is recomputed from the store."""
