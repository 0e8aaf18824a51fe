"""Training of the testbed: autoencoder, text tower, denoiser, in this order, resumable."""

from memattn.testbed.training.pipeline import train
from memattn.testbed.training.publication import publish

__all__ = ["publish", "train"]
