"""`memattn testbed verify`: samples the prompts and finds out which are copies."""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from memattn.testbed.copies import NO_COPY, copied
from memattn.testbed.groups import SHOWN_GROUPS
from memattn.testbed.latents import reconstruct
from memattn.testbed.manifest import VERIFIED_COPIES, Entry, Manifest
from memattn.testbed.sampling import sample_pictures
from memattn.testbed.truth import distance

SEEDS = (0, 1, 2, 3)


@dataclass(frozen=True)
class Verification:
    """What sampling found.

    Attributes:
        copies: For each shown prompt, how many of its seeds gave a copy of its own picture.
        rigid: Template prompts whose pictures do not vary outside the fixed region either: the
            true mask would then be the whole picture.
        false_copies: Ordinary prompts that gave a copy of any shown picture from the first seed,
            and from how many seeds they did.
        ordinary: How many ordinary prompts were sampled.
    """

    copies: dict[str, int]
    rigid: tuple[str, ...]
    false_copies: dict[str, int]
    ordinary: int

    def fill(self, manifest: Manifest) -> Manifest:
        """The manifest with what was found."""
        found = replace(manifest, rigid=self.rigid, false_copies=self.false_copies)
        return found.with_copies(self.copies)

    def summary(self, manifest: Manifest) -> list[tuple[str, int, int]]:
        """For each group and each rung of the ladder: its name, verified copies, prompts."""
        rows: list[tuple[str, int, int]] = []
        for group in SHOWN_GROUPS:
            entries = manifest.select(group)
            rungs = sorted({entry.showings for entry in entries}) if group == "ladder" else [None]
            for rung in rungs:
                found = [
                    self.copies[entry.prompt] >= VERIFIED_COPIES
                    for entry in entries
                    if rung in (None, entry.showings)
                ]
                name = group if rung is None else f"{group}, shown {rung} times"
                rows.append((name, sum(found), len(found)))
        verified = sum(copies >= VERIFIED_COPIES for copies in self.false_copies.values())
        return [*rows, ("ordinary", verified, self.ordinary)]

    def bar(self, manifest: Manifest) -> list[tuple[str, bool]]:
        """What a testbed has to reach to be trusted, in words with the figures, and whether it did.

        At least 90 % of verbatim and of template prompts are verified copies, none of those seen
        once or never, and copies become more from rung to rung. Of the control, which was shown
        every picture once, none are.
        """
        rows = self.summary(manifest)
        if all(entry.showings == 1 for entry in manifest.shown):
            return [_none(*row) for row in rows]
        lines = [
            (f"{name}: {found} of {of}, at least 90 %", found >= 0.9 * of)
            for name, found, of in rows
            if name in ("verbatim", "template")
        ]
        lines += [_none(*row) for row in rows if row[0] in ("seen_once", "ordinary")]
        rungs: Counter[int] = Counter()
        for entry in manifest.select("ladder"):
            rungs[entry.showings] += self.copies[entry.prompt]
        counts = [rungs[rung] for rung in sorted(rungs)]
        rises = counts == sorted(counts) and len(set(counts)) > 1
        lines.append((f"ladder: {' '.join(map(str, counts))} copying seeds by rung, rising", rises))
        return lines


def _none(name: str, found: int, of: int) -> tuple[str, bool]:
    return f"{name.replace('_', ' ')}: {found} of {of}, none", found == 0


def verify(pipeline: StableDiffusionPipeline, manifest: Manifest) -> Verification:
    """Samples every shown prompt from four seeds and counts copies.

    Ordinary prompts are sampled from the first seed, and those that gave a copy from the others.

    Args:
        pipeline: The testbed's pipeline.
        manifest: Its prompts, training pictures, masks and thresholds.

    Returns:
        The counts.
    """
    shown = manifest.shown
    targets = reconstruct(pipeline.vae, manifest.pictures)
    prompts = [entry.prompt for entry in shown]
    images = np.stack(
        [sample_pictures(pipeline, prompts, seed, f"seed {seed}") for seed in SEEDS]
    )  # [seeds, shown, 64, 64, 3]
    own = np.arange(len(shown))
    copies = sum(
        (copied(of_seed, prompts, manifest, targets) == own).astype(int) for of_seed in images
    )
    rigid = tuple(
        entry.prompt
        for entry, of_entry in zip(shown, images.swapaxes(0, 1), strict=True)
        if entry.group == "template" and _is_rigid(of_entry, entry, manifest)
    )
    return Verification(
        copies=dict(zip(prompts, np.asarray(copies).tolist(), strict=True)),
        rigid=rigid,
        false_copies=_false_copies(pipeline, manifest, targets),
        ordinary=len(manifest.select("ordinary")),
    )


def _false_copies(
    pipeline: StableDiffusionPipeline, manifest: Manifest, targets: NDArray[np.uint8]
) -> dict[str, int]:
    """Copies of each ordinary prompt that gave one from the first seed; no others are asked."""
    prompts = [entry.prompt for entry in manifest.select("ordinary")]
    copies = Counter[str]()
    for seed in SEEDS:
        pictures = sample_pictures(pipeline, prompts, seed, f"ordinary, seed {seed}")
        found = copied(pictures, prompts, manifest, targets)
        copies.update(p for p, of in zip(prompts, found, strict=True) if of != NO_COPY)
        prompts = list(copies)
        if not prompts:
            break
    return dict(copies)


def _is_rigid(images: NDArray[np.uint8], entry: Entry, manifest: Manifest) -> bool:
    """Whether the pictures of several seeds agree outside the fixed region as copies would."""
    assert entry.true_mask is not None
    outside = [distance(a, b, ~entry.true_mask) for a, b in combinations(images, 2)]
    return bool(np.median(outside) < manifest.thresholds.inside)
