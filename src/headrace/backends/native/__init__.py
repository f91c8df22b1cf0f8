"""The CPU backend: C++ kernels that keep weights quantised and give the same bits for any batch."""
