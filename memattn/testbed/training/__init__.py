"""Training of the testbed: autoencoder, text tower, denoiser, attribute classifier; resumable."""

from memattn.testbed.training.attributes import train_attributes
from memattn.testbed.training.pipeline import train
from memattn.testbed.training.publication import publish

__all__ = ["publish", "train", "train_attributes"]
