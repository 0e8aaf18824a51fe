"""How well a localiser's masks show where a copy is, against true masks."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from memattn.evaluation.bootstrap import Estimate, bootstrap


@dataclass(frozen=True)
class Localisation:
    """How well masks agree with true masks, means over samples.

    Attributes:
        average_precision: Average precision at the truth's resolution.
        iou: Intersection over union at the truth's resolution.
        native_average_precision: Average precision at the masks' own resolution.
        native_iou: Intersection over union at the masks' own resolution.
        chance_average_precision: What masks that know nothing get at the truth's resolution: a
            mask with the same value everywhere, the mean area share of the truth.
        chance_iou: What regions that know nothing get at the truth's resolution: as many pixels as
            each mask flags, in random places. Flagging the whole picture gets the mean area share
            of the truth instead, `chance_average_precision`.
        samples: Number of samples.
    """

    average_precision: Estimate
    iou: Estimate
    native_average_precision: Estimate
    native_iou: Estimate
    chance_average_precision: float
    chance_iou: float
    samples: int


def localisation(masks: Tensor, truth: NDArray[np.bool_]) -> Localisation:
    """Compare masks with true masks.

    Average precision asks only how a mask ranks the pixels of its own sample: precision at every
    distinct value, weighted by the recall that it adds; pixels of equal value count together.
    Intersection over union takes a region: the pixels above the mask's own mean over the picture.
    Bright Ending's papers give raw attention and no threshold; the mean is the one cut that has no
    parameter and does not change when a mask is scaled. A mask with the same value everywhere has
    no such pixel and gets 0. How much of the picture the mean cuts out is up to the mask, so chance
    takes that share q as it is: of a truth with share a, q * a lies in both and q + a - q * a in
    either, and their ratio is chance.

    At the truth's resolution the mask is enlarged bilinearly. At the mask's own resolution the
    truth is averaged over the pixels that each of the mask's pixels touches, and more than half
    counts as inside: what the mask could show at all, without the loss from its coarseness.

    Args:
        masks: One mask per sample [n, h, w], higher = more likely copied.
        truth: The true region of each sample [n, H, W], H >= h and W >= w.

    Returns:
        Means over the samples with 95 % bootstrap intervals over the samples, beside chance.

    Raises:
        ValueError: If the shapes or dtypes do not fit, a mask is not finite, or a sample's truth
            is everywhere or nowhere, at either resolution: nothing can be localised there.

    Source:
        Masks: Chen et al. 2025, arXiv:2410.21665. IoU beside that of the whole picture: Kim and
        Lee 2026.
    """
    _check(masks, truth)
    values = masks.detach().cpu().float()
    inside = torch.from_numpy(truth)
    native_inside = F.interpolate(inside[:, None].double(), size=values.shape[-2:], mode="area")
    native_truth = (native_inside[:, 0] > 0.5).numpy()
    _check_regions(truth, "its own")
    _check_regions(native_truth, "the masks'")
    enlarged = [_enlarged(mask, truth.shape[-2:]) for mask in values]
    agreements = np.array(
        [
            _agreement(wide, region) + _agreement(mask.numpy(), native_region)
            for wide, region, mask, native_region in zip(
                enlarged, truth, values, native_truth, strict=True
            )
        ]
    )  # [n, 4]
    precision, iou, native_precision, native_iou = (_mean(column) for column in agreements.T)
    shares = truth.mean(axis=(1, 2))  # [n]
    flagged = np.array([_region(wide).mean() for wide in enlarged])  # [n]
    both = flagged * shares
    return Localisation(
        average_precision=precision,
        iou=iou,
        native_average_precision=native_precision,
        native_iou=native_iou,
        chance_average_precision=float(shares.mean()),
        chance_iou=float((both / (flagged + shares - both)).mean()),
        samples=len(truth),
    )


def _check(masks: Tensor, truth: NDArray[np.bool_]) -> None:
    """Refuse masks and truth that cannot be compared."""
    if masks.ndim != 3 or masks.numel() == 0 or not masks.is_floating_point():
        raise ValueError(
            f"got masks of shape {tuple(masks.shape)} and dtype {masks.dtype}, expected [n, h, w] "
            "of floating point with at least one sample"
        )
    if truth.ndim != 3 or truth.dtype != np.bool_ or len(truth) != len(masks):
        raise ValueError(
            f"got truth of shape {truth.shape} and dtype {truth.dtype}, expected [n, H, W] of bool "
            f"for {len(masks)} masks"
        )
    if any(fine < coarse for fine, coarse in zip(truth.shape[1:], masks.shape[1:], strict=True)):
        raise ValueError(
            f"got truth of {truth.shape[1]} x {truth.shape[2]} pixels, expected at least the "
            f"{masks.shape[1]} x {masks.shape[2]} of the masks"
        )
    finite = torch.isfinite(masks).all(dim=2).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(
            f"got masks that are not finite in samples {(~finite).nonzero().flatten().tolist()}, "
            "expected none"
        )


def _check_regions(truth: NDArray[np.bool_], resolution: str) -> None:
    """Refuse samples in which there is nothing to localise."""
    for wrong, where in ((truth.all(axis=(1, 2)), "everywhere"), (~truth.any((1, 2)), "nowhere")):
        if wrong.any():
            raise ValueError(
                f"got truth that is {where} at {resolution} resolution in samples "
                f"{np.flatnonzero(wrong).tolist()}, expected a region that is part of the picture"
            )


def _enlarged(mask: Tensor, size: tuple[int, ...]) -> NDArray[np.float32]:
    """One mask [h, w] at another size.

    Rounded to float32, because the weights' rounding would rank the pixels of a flat mask.
    """
    wide = mask[None, None].double()
    enlarged = F.interpolate(wide, size=size, mode="bilinear", align_corners=False)
    values: NDArray[np.float32] = enlarged[0, 0].float().numpy()
    return values


def _agreement(mask: NDArray[np.float32], inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Average precision and intersection over union of one mask [h, w] with one region [h, w]."""
    values, truth = mask.ravel().astype(np.float64), inside.ravel()
    return _average_precision(values, truth), _iou(_region(mask).ravel(), truth)


def _region(mask: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The pixels of a mask [h, w] above its mean."""
    # In double precision the mean of a flat float32 mask is exact, and none of its pixels above.
    region: NDArray[np.bool_] = mask > mask.mean(dtype=np.float64)
    return region


def _average_precision(values: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Sum over distinct values, from the highest down, of the recall gained times precision."""
    order = np.argsort(-values)
    hits = np.cumsum(inside[order])
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))  # last of each tie
    gained = np.diff(hits[ends], prepend=0)
    return float((gained * hits[ends] / (ends + 1)).sum() / hits[-1])


def _iou(region: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    """Pixels in both over pixels in either."""
    return float((region & inside).sum() / (region | inside).sum())


def _mean(values: NDArray[np.float64]) -> Estimate:
    """Mean over samples with its interval."""
    return bootstrap(lambda drawn: drawn.mean(axis=-1), values)
