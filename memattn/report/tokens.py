"""Attention per word of a prompt, from attention per token."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from memattn.report.page import TokenShare

_END_OF_WORD = "</w>"  # CLIP's byte-pair encoding marks the last piece of a word with this


class _Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...

    def decode(self, ids: list[int]) -> str: ...


def token_shares(
    attention: Tensor, token_ids: Sequence[int], tokenizer: _Tokenizer
) -> tuple[TokenShare, ...]:
    """Sum attention over the pieces of each word, and over all padding.

    Args:
        attention: Attention each token received [Lk], summing to 1.
        token_ids: The prompt's tokens, begin and end token included, padding left out.
        tokenizer: The pipeline's tokenizer.

    Returns:
        The begin token, each word, the end token, and the padding if there is any.

    Raises:
        ValueError: If there are fewer than two tokens, or more than `attention` covers.
    """
    if not 2 <= len(token_ids) <= len(attention):
        raise ValueError(
            f"got {len(token_ids)} tokens, expected 2 to {len(attention)}, begin and end included"
        )
    shares = attention.double().tolist()
    end = len(token_ids) - 1
    found = [TokenShare("", "begin", shares[0])]
    pieces: list[int] = []
    total = 0.0
    inner = list(token_ids[1:end])
    for position, (token_id, piece) in enumerate(
        zip(inner, tokenizer.convert_ids_to_tokens(inner), strict=True), start=1
    ):
        pieces.append(token_id)
        total += shares[position]
        # A prompt cut at the text tower's last slot may end inside a word.
        if piece.endswith(_END_OF_WORD) or position == end - 1:
            found.append(TokenShare(tokenizer.decode(pieces).strip(), "word", total))
            pieces, total = [], 0.0
    found.append(TokenShare("", "end", shares[end]))
    if len(shares) > len(token_ids):
        found.append(TokenShare("", "padding", sum(shares[len(token_ids) :])))
    return tuple(found)
