"""CLIP score: how well a picture follows its prompt, by a local CLIP."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from tqdm import tqdm

from memattn.errors import InputError

_BATCH = 16


class ClipScore:
    """Cosine between CLIP's embeddings of a picture and of its prompt.

    The plain cosine in -1..1, as papers on memorization report it. Hessel et al. define the score
    as 2.5 times the cosine, at least 0, and put "A photo depicts" before the caption; here the
    prompt stands as the model got it. Some report 100 times the cosine. A figure compares only with
    figures of the same CLIP.

    Args:
        folder: A folder with a CLIP model, its tokenizer and its image processor, as transformers
            saves them; nothing is downloaded.

    Raises:
        InputError: If the folder is missing, holds no CLIP, or lacks some of its weights.

    Source:
        Hessel et al. 2021, "CLIPScore: a reference-free evaluation metric for image captioning",
        arXiv:2104.08718, section 3.
    """

    name: ClassVar[str] = "CLIP score"

    def __init__(self, folder: Path) -> None:
        from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel

        if not folder.is_dir():
            raise InputError(f"got {folder}, expected a folder with a CLIP model")
        local = {"local_files_only": True}
        try:
            config = AutoConfig.from_pretrained(folder, **local)
            if config.model_type != "clip":
                raise InputError(
                    f"{folder} holds a model of type {config.model_type}, expected clip"
                )
            with _without_progress_bars():
                model, loading = CLIPModel.from_pretrained(
                    folder, dtype=torch.float32, output_loading_info=True, **local
                )
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **local)
            # The other backend needs torchvision and resizes a little differently.
            self._processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
        except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"{folder} holds no CLIP that can be loaded: {reason}") from error
        # transformers draws what it does not find at random, and says so in a warning at most.
        absent = sorted(loading["missing_keys"])
        if absent:
            raise InputError(
                f"{folder} lacks {len(absent)} of CLIP's weights, {absent[0]} the first of them, "
                "expected all"
            )
        self._model = model.eval()

    def scores(
        self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]
    ) -> NDArray[np.float64]:
        """Scores of pictures for their prompts.

        Args:
            images: Pictures [height, width, 3], uint8, of any sizes.
            prompts: One per picture; what does not fit CLIP's slots is cut off.

        Returns:
            Cosines [images].

        Raises:
            ValueError: If there are no pictures, or other numbers of pictures and prompts.
        """
        if len(images) != len(prompts) or len(images) == 0:
            raise ValueError(
                f"got {len(images)} images and {len(prompts)} prompts, expected one prompt per "
                "image, and at least one"
            )
        starts = range(0, len(images), _BATCH)
        parts = ((images[s : s + _BATCH], prompts[s : s + _BATCH]) for s in starts)
        found = [self._score(*part) for part in tqdm(parts, self.name, total=len(starts))]
        return np.concatenate(found)

    @torch.no_grad()
    def _score(
        self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]
    ) -> NDArray[np.float64]:
        slots = self._model.config.text_config.max_position_embeddings
        words = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=slots, return_tensors="pt"
        )
        pixels = self._processor(
            list(images), input_data_format="channels_last", return_tensors="pt"
        )
        found = self._model(
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
            pixel_values=pixels.pixel_values,
        )
        cosines: NDArray[np.float64] = (
            (found.image_embeds * found.text_embeds).sum(dim=-1).double().numpy()
        )
        return cosines


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Loading takes seconds; transformers' bar for it would stand between the command's own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
