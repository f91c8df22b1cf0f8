"""The step loop, the sequence verbs, and what a draw of a token is."""
