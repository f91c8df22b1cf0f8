"""The claims of the 102 systems, and their results."""
