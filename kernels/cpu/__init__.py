"""The CPU backend: csrc/cpu, vectorised for the machine at hand; threads share the queries."""
