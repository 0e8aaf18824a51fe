"""Training of the testbed: autoencoder, text tower, denoiser, in this order, resumable."""

from memattn.testbed.training.publish import publish
from memattn.testbed.training.train import train

__all__ = ["publish", "train"]
