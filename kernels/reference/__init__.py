"""The oracle: eager torch, readable, exact in float64, runs on any device."""
