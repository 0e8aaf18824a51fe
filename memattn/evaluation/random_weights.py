"""The control that needs no training: the same pipeline with a denoiser of random weights."""

import copy

import torch

from memattn.evaluation.settings import Pipeline

_SEED = 0


def with_random_denoiser(pipe: Pipeline) -> Pipeline:
    """A pipeline whose denoiser has random weights, the same ones every time.

    Nothing can be memorized by it, so whatever separates memorized from ordinary prompts here is a
    property of the prompts: an AUROC whose interval misses 0.5 tells how much of a figure comes
    from them. Text encoder, autoencoder and scheduler are those of the pipeline itself.

    Args:
        pipe: A Stable Diffusion pipeline; it stays as it is.

    Returns:
        The control, on the same device and in the same dtype.
    """
    unet = getattr(pipe.unet, "_orig_mod", pipe.unet)  # inside a compiled wrapper
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        random = type(unet).from_config(unet.config).eval()
    control = copy.copy(pipe)
    # Not diffusers' own `to`, which warns of a change of dtype even where there is none.
    control.unet = torch.nn.Module.to(random, device=unet.device, dtype=unet.dtype)
    return control
