"""Better answers for a budget: strategies over live sequences, and the exact arithmetic below them."""
