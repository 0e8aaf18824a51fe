"""The Triton backend: any GPU that Triton knows; kernels are compiled at the first call."""
