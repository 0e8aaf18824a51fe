"""What runs on the device: Triton's language, compiled at the first call of a shape."""
