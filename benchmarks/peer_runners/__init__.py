"""The peers: how each is installed, driven and compared. `run_*.py` run inside the peers' own environments."""
