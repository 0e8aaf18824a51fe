"""How images are generated: what a calibration is bound to."""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import Any

# diffusers may not be imported on this layer, and its own types are loose.
Pipeline = Any  # a Stable Diffusion pipeline
Scheduler = Any  # its scheduler


@dataclass(frozen=True)
class RunSettings:
    """How images are generated; scores compare only between runs with equal settings.

    Attributes:
        steps: Inference steps.
        guidance_scale: Weight of classifier-free guidance.
        height: Image height in pixels; None for the pipeline's own.
        width: Image width in pixels; None for the pipeline's own.
        scheduler: Class and digest of the configuration of the scheduler; None for whatever the
            pipeline has.
    """

    steps: int = 50
    guidance_scale: float = 7.5
    height: int | None = None
    width: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that no pipeline can run."""
        if self.steps < 1:
            raise ValueError(f"got steps={self.steps}, expected at least 1")
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"got guidance_scale={self.guidance_scale}, expected a finite number")
        for side in ("height", "width"):
            pixels = getattr(self, side)
            if pixels is not None and pixels < 1:
                raise ValueError(f"got {side}={pixels}, expected at least 1 or None")

    def resolve(self, pipe: Pipeline) -> "RunSettings":
        """These settings with what they leave to the pipeline filled in from it.

        Args:
            pipe: The pipeline that will run.

        Returns:
            Settings without None.

        Raises:
            ValueError: If they name another scheduler than the pipeline's.
        """
        scheduler = _scheduler_identity(pipe.scheduler)
        if self.scheduler not in (None, scheduler):
            raise ValueError(
                f"got a pipeline with scheduler {scheduler}, expected {self.scheduler}"
            )
        latent = pipe.unet.config.sample_size
        rows, columns = (latent, latent) if isinstance(latent, int) else latent
        return replace(
            self,
            height=self.height or rows * pipe.vae_scale_factor,
            width=self.width or columns * pipe.vae_scale_factor,
            scheduler=scheduler,
        )


def _scheduler_identity(scheduler: Scheduler) -> str:
    """Class name and digest of the configuration, without diffusers' private bookkeeping."""
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    text = json.dumps(config, sort_keys=True, default=str)
    return f"{type(scheduler).__name__}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
