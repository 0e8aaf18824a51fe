"""Every number that decides what the testbed is; stored in its manifest."""

from dataclasses import dataclass, replace

_CONTROL_SHARE = 0.35  # of the steps; without copies to learn, the rest changes little


@dataclass(frozen=True)
class Recipe:
    """How the testbed is drawn and trained.

    Attributes:
        seed: Fixes the pool, the training stream and the initial weights.
        permutation: Seed of the permutation that assigns the pool's scenes to the groups.
        duplicates: False shows every picture of the pool's shown groups once: the control.
        verbatim, template, seen_once, ordinary: Number of captions in each group.
        ladder: Showings on each rung of the ladder.
        ladder_captions: Captions on each rung.
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
    permutation: int = 0
    duplicates: bool = True
    verbatim: int = 48
    template: int = 48
    ladder: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    ladder_captions: int = 8
    seen_once: int = 48
    ordinary: int = 1000
    ordinary_scenes: int = 40_000
    template_variants: int = 300
    verbatim_share: float = 0.22
    template_share: float = 0.20
    caption_dropout: float = 0.10
    vae_steps: int = 3600
    text_steps: int = 2000
    unet_steps: int = 15_000
    vae_batch: int = 8
    text_batch: int = 128
    unet_batch: int = 16
    vae_rate: float = 2e-3
    text_rate: float = 1e-3
    unet_rate: float = 7e-4
    ema_decay: float = 0.9995

    def without_duplicates(self) -> "Recipe":
        """The control: every picture shown once, for as long as the ordinary ones need."""
        return replace(self, duplicates=False, unet_steps=round(_CONTROL_SHARE * self.unet_steps))

    @property
    def group_counts(self) -> dict[str, int]:
        """Captions in each group."""
        return {
            "verbatim": self.verbatim,
            "template": self.template,
            "ladder": len(self.ladder) * self.ladder_captions,
            "seen_once": self.seen_once,
            "ordinary": self.ordinary,
        }
