"""Pictures of a report: PNG data URIs, and masks laid over images."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_HIGHLIGHT = np.array([255.0, 176.0, 0.0])
_DIMMED = 0.42  # brightness of what a mask leaves out
_TINT = 0.62  # share of the highlight colour where a mask is at its highest


_PAGE_WIDTH = 384  # twice what the page shows, for dense screens; the full image lies beside it


def reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image at most as wide as the page can use; smaller images stay as they are."""
    height, width = image.shape[:2]
    if width <= _PAGE_WIDTH:
        return image
    size = (_PAGE_WIDTH, max(1, round(height * _PAGE_WIDTH / width)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """The image [height, width, 3], uint8, as a PNG file."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"got an image of shape {tuple(image.shape)} and type {image.dtype}, "
            "expected [height, width, 3] and uint8"
        )
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(image: NDArray[np.uint8]) -> str:
    """The image as a `data:` address that needs no file beside the page."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")


def overlay(image: NDArray[np.uint8], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """The image in dim grey with the mask laid over it in colour [height, width, 3], uint8.

    The mask [h, w] is stretched to the image's size, and its lowest and highest value to no colour
    and full colour; a mask that is the same everywhere keeps its value, cut to 0 to 1.
    """
    height, width = image.shape[:2]
    weights = np.asarray(mask, dtype=np.float32)
    low, high = float(weights.min()), float(weights.max())
    # A flat mask has no contrast to stretch; dividing by its zero range would give NaN.
    weights = (weights - low) / (high - low) if high > low else np.clip(weights, 0.0, 1.0)
    stretched = Image.fromarray(weights).resize((width, height), Image.Resampling.NEAREST)
    weight = np.asarray(stretched)[:, :, None]
    grey = image.astype(np.float32).mean(axis=2, keepdims=True)
    base = grey * (_DIMMED + (1.0 - _DIMMED) * weight)
    blended = base * (1.0 - _TINT * weight) + _HIGHLIGHT * (_TINT * weight)
    drawn: NDArray[np.uint8] = np.clip(np.rint(blended), 0, 255).astype(np.uint8)
    return drawn
