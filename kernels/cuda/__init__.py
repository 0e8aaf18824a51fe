"""The CUDA backend: csrc/cuda, for short text keys in 16 bits on NVIDIA's GPUs."""
