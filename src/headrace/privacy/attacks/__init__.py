"""Attacks on veiled deployments, to be run against one's own: what a server learns in spite of the key."""
