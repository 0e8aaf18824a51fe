"""Prompts from the command line or a file."""

from collections.abc import Sequence
from pathlib import Path

from memattn.errors import InputError


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read one prompt per line; blank lines are skipped.

    Args:
        path: A UTF-8 text file.

    Returns:
        The prompts without surrounding blanks, at least one.

    Raises:
        InputError: If the file is missing, unreadable, not UTF-8, or holds no prompt.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"got the prompt file {path}, which does not exist.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"got the prompt file {path} with bytes that are not UTF-8 at position "
            f"{error.start}, expected UTF-8 text with one prompt per line."
        ) from error
    except OSError as error:
        raise InputError(f"cannot read the prompt file {path}: {error.strerror}.") from error
    # splitlines() would also cut at form feeds and Unicode line separators inside a prompt.
    prompts = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not prompts:
        raise InputError(f"got the prompt file {path} without a prompt, expected one per line.")
    return prompts


def check_distinct(prompts: Sequence[str], where: str) -> None:
    """Refuse a prompt that comes twice: two images of one prompt are not independent.

    Args:
        prompts: The prompts.
        where: What they were given in, for the message.

    Raises:
        InputError: If two of them are the same to Stable Diffusion's tokenizers, which see neither
            case nor the number of blanks.
    """
    seen: set[str] = set()
    for prompt in prompts:
        key = " ".join(prompt.lower().split())
        if key in seen:
            raise InputError(
                f"got the prompt {prompt!r} twice in {where}, expected every prompt once: images "
                "of one prompt are not independent."
            )
        seen.add(key)


def gather_prompts(given: list[str], file: Path | None) -> tuple[str, ...]:
    """Prompts of `--prompt` followed by those of `--prompts`.

    Args:
        given: Values of `--prompt`.
        file: Value of `--prompts`.

    Returns:
        The prompts, at least one.

    Raises:
        InputError: If there is none, one of `given` is blank, or the file cannot be used.
    """
    if any(not prompt.strip() for prompt in given):
        raise InputError("got a blank --prompt, expected some text.")
    prompts = tuple(given) + (read_prompts(file) if file is not None else ())
    if not prompts:
        raise InputError('got no prompt, expected --prompt "..." or --prompts FILE.')
    return prompts
