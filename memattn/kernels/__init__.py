"""Kernel backends. The sources live in the top-level kernels/ folder, one child per backend."""
