"""Strategies of test-time compute, each a short program over a run."""
