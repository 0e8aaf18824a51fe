"""Every number that decides what the testbed is; stored in its manifest."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How the testbed is drawn and trained.

    Attributes:
        seed: Fixes pool, permutation, training stream and initial weights.
        verbatim, template, seen_once, ordinary: Number of captions in each group.
        ordinary_scenes: Ordinary scenes in the training stream, each shown a few times.
        template_variants: Pictures drawn for each template family.
        verbatim_share, template_share: Share of each batch; the rest is ordinary.
        caption_dropout: Share of captions replaced by the empty prompt, as Stable Diffusion did.
        vae_steps, text_steps, unet_steps: Optimizer steps of each stage.
        vae_batch, text_batch, unet_batch: Pictures per step of each stage.
        vae_rate, text_rate, unet_rate: Peak learning rate of each stage.
        ema_decay: Decay of the denoiser's averaged weights, which are the ones shipped.
    """

    seed: int = 0
    verbatim: int = 24
    template: int = 24
    seen_once: int = 24
    ordinary: int = 1000
    ordinary_scenes: int = 30_000
    template_variants: int = 400
    verbatim_share: float = 0.20
    template_share: float = 0.16
    caption_dropout: float = 0.10
    vae_steps: int = 3600
    text_steps: int = 2000
    unet_steps: int = 7500
    vae_batch: int = 8
    text_batch: int = 128
    unet_batch: int = 16
    vae_rate: float = 2e-3
    text_rate: float = 1e-3
    unet_rate: float = 5e-4
    ema_decay: float = 0.9995

    @property
    def group_counts(self) -> dict[str, int]:
        """Captions in each group."""
        return {
            "verbatim": self.verbatim,
            "template": self.template,
            "seen_once": self.seen_once,
            "ordinary": self.ordinary,
        }
