"""Inference on secret shares: while all parties keep to the protocol, none alone sees prompt, weights or answer."""
