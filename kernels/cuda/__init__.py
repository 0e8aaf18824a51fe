"""The CUDA backend: csrc/cuda, for text keys in 16 bits on NVIDIA's GPUs."""
