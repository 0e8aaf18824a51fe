"""Makes memattn's processors known to diffusers' hooks, which look processors up by exact class."""

from diffusers.hooks._helpers import (
    AttentionProcessorMetadata,
    AttentionProcessorRegistry,
    _skip_attention___ret___hidden_states,
)


def register(*processors: type) -> None:
    """Tell layer-skipping and guidance hooks what a skipped layer of these processors returns."""
    metadata = AttentionProcessorMetadata(
        skip_processor_output_fn=_skip_attention___ret___hidden_states
    )
    for processor in processors:
        # The public `register` would first import every transformer model diffusers knows.
        AttentionProcessorRegistry._registry[processor] = metadata
