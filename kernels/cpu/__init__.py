"""The CPU backend: csrc/cpu, vectorised for the machine at hand, a thread per block of queries."""
