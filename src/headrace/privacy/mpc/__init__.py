"""Inference on secret shares: a transformer among parties of which none sees the prompt, the weights or the answer."""
