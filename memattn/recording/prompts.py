"""Prompt lengths, learnt from the pipeline instance's own `encode_prompt`."""

import functools
import inspect
from dataclasses import dataclass
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.loaders import TextualInversionLoaderMixin

from memattn.errors import RecordingError


@dataclass(frozen=True)
class EncodedPrompts:
    """What one call of `encode_prompt` was about.

    Attributes:
        lengths: Tokens of each prompt with begin and end token, after truncation and textual
            inversion; None if the caller gave embeddings.
        prompts: Number of prompts n.
        images_per_prompt: Images per prompt m.
    """

    lengths: tuple[int, ...] | None
    prompts: int
    images_per_prompt: int

    @property
    def samples(self) -> int:
        """Images of the run, n * m."""
        return self.prompts * self.images_per_prompt


class PromptListener:
    """Wraps `encode_prompt` of one pipeline instance and remembers its last call.

    Args:
        pipe: The pipeline.

    Raises:
        RecordingError: If the pipeline has no `encode_prompt`.
    """

    def __init__(self, pipe: DiffusionPipeline) -> None:
        if not callable(getattr(pipe, "encode_prompt", None)):
            name = type(pipe).__name__
            raise RecordingError(f"got a {name}, expected a pipeline with encode_prompt.")
        self._pipe = pipe
        self.encoded: EncodedPrompts | None = None

    def attach(self) -> None:
        """Put the wrapper on the instance."""
        encode_prompt = self._pipe.encode_prompt
        signature = inspect.signature(encode_prompt)
        self._own = self._pipe.__dict__.get("encode_prompt")

        @functools.wraps(encode_prompt)
        def listening(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever it takes)
            result = encode_prompt(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            self.encoded = _encoded(self._pipe, bound.arguments)
            return result

        self._listening = self._pipe.encode_prompt = listening

    def detach(self) -> None:
        """Put back what was there; what somebody has put there meanwhile stays."""
        if self._pipe.__dict__.get("encode_prompt") is not self._listening:
            return
        if self._own is None:
            del self._pipe.encode_prompt
        else:
            self._pipe.encode_prompt = self._own


def _encoded(pipe: DiffusionPipeline, arguments: dict[str, Any]) -> EncodedPrompts:
    """Read the arguments of one `encode_prompt` call."""
    images_per_prompt = arguments.get("num_images_per_prompt") or 1
    embeddings = arguments.get("prompt_embeds")
    if embeddings is not None:
        return EncodedPrompts(None, embeddings.shape[0], images_per_prompt)
    prompt = arguments["prompt"]
    both = (getattr(pipe, "tokenizer", None), getattr(pipe, "tokenizer_2", None))
    tokenizers = [tokenizer for tokenizer in both if tokenizer is not None]
    prompts = [prompt, arguments.get("prompt_2") or prompt]
    lengths = [
        _lengths(pipe, tokenizer, [text] if isinstance(text, str) else list(text))
        for tokenizer, text in zip(tokenizers, prompts, strict=False)
    ]
    count = 1 if isinstance(prompt, str) else len(prompt)
    longest = tuple(map(max, zip(*lengths, strict=True))) if lengths else None
    return EncodedPrompts(longest, count, images_per_prompt)


def _lengths(pipe: DiffusionPipeline, tokenizer: Any, prompts: list[str]) -> list[int]:  # noqa: ANN401
    """Tokens of each prompt with begin and end token."""
    if isinstance(pipe, TextualInversionLoaderMixin):
        prompts = pipe.maybe_convert_prompt(prompts, tokenizer)
    # The attention mask, not the padding id: CLIP of SD 1 pads with its end token.
    tokens = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True
    )
    return [sum(mask) for mask in tokens["attention_mask"]]
