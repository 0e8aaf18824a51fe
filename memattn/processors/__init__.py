"""Attention processors for diffusers."""

from memattn.processors.attention import AttnProcessor
from memattn.processors.recording import RecordingProcessor
from memattn.processors.registration import register

__all__ = ["AttnProcessor"]

register(AttnProcessor, RecordingProcessor)
