"""The contracts that hold the house together. Pure Python; imports nothing of Headrace above it."""
