"""How the truth about the testbed was made, in sentences with the testbed's own figures."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memattn.testbed import Manifest


def testbed_truth(manifest: "Manifest") -> tuple[str, ...]:
    """How it is known which prompts the testbed memorized.

    Args:
        manifest: The testbed's manifest.

    Returns:
        One paragraph for each subject.
    """
    verbatim, template = manifest.select("verbatim"), manifest.select("template")
    ladder, once = manifest.select("ladder"), manifest.select("seen_once")
    ordinary = manifest.select("ordinary")
    rungs = sorted({entry.showings for entry in ladder})
    climb = (
        f"{len(ladder)} on a ladder of {rungs[0]} to {rungs[-1]} showings (ladder), "
        if ladder
        else ""
    )
    copied = [
        f"{sum(entry.is_memorized for entry in entries)} of {len(entries)} {name}"
        for name, entries in (("verbatim", verbatim), ("template", template), ("ladder", ladder))
        if entries
    ]
    return (
        "All captions and scenes come from one generator, and a seeded permutation assigned them "
        "to groups, which differ only in what training showed of them: "
        f"{len(verbatim)} captions with one picture each, shown often (verbatim), {len(template)} "
        "captions shown often with pictures that share one region and vary elsewhere (template), "
        f"{climb}{len(once)} shown once, {len(ordinary)} never (ordinary).",
        "What was shown often need not have been learned, so the truth was checked: a prompt "
        "counts as memorized if at least three of four images, made from other seeds, are copies "
        "of its training picture (for a template, of the fixed region), under distances taken "
        f"from data before training. That holds for {', '.join(copied)} prompts, and for "
        f"{sum(entry.is_memorized for entry in once)} of {len(once)} shown once.",
        "The true mask of a template is its fixed region, known per pixel. "
        "Ordinary prompts were checked with one seed each, and with three more where that gave a "
        f"copy of some training picture; such prompts, {len(manifest.false_copies)} in all, are "
        "left out everywhere.",
    )
