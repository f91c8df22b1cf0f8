"""What runs in the environment of SPU and JAX; nothing outside this folder imports it."""
