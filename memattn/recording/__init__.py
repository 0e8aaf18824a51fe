"""Recording what a denoiser's cross-attention does during a run."""

from memattn.recording.recorder import Recorder, record

__all__ = ["Recorder", "record"]
