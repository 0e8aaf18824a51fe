"""Which rows of a denoiser's batch are conditional; told by the caller, never by the batch size."""

from typing import Literal, get_args

from diffusers import DiffusionPipeline

from memattn.errors import RecordingError

Layout = Literal["conditional", "unconditional+conditional"]


def layout_of(pipe: DiffusionPipeline) -> Layout:
    """The layout of the pipeline's present run."""
    guided = getattr(pipe, "do_classifier_free_guidance", None)
    if guided is None:
        raise RecordingError(
            f"got a {type(pipe).__name__}, expected a pipeline that says whether it is guided "
            "(do_classifier_free_guidance); record its denoiser with layout=."
        )
    return "unconditional+conditional" if guided else "conditional"


def checked_layout(layout: str | None) -> Layout:
    """The layout a caller gave for a bare denoiser."""
    for known in get_args(Layout):
        if layout == known:
            return known  # type: ignore[no-any-return]
    expected = " or ".join(repr(known) for known in get_args(Layout))
    raise RecordingError(f"got a bare denoiser with layout={layout!r}, expected {expected}.")


def parts(layout: Layout) -> int:
    """Denoiser rows per sample."""
    return 2 if layout == "unconditional+conditional" else 1


def conditional_rows(layout: Layout, batch: int) -> slice:
    """The conditional rows: the second half of [uncond x samples, cond x samples], or all."""
    if batch % parts(layout):
        raise RecordingError(f"got a batch of {batch} rows, expected an even one for {layout}.")
    return slice(batch - batch // parts(layout), batch)
