"""Data types shared by every layer, and the alphabet of axis letters used across the repository.

B   batch (in a `Record`: samples)      H    attention heads      D   head dimension
Lq  query positions (image)             Lk   key positions (text tokens)
Lc  key columns that are asked about, of a longer key axis
S   denoiser calls of one run           N    recorded attention layers
h, w  height and width of the latent
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

Backend = Literal["auto", "cuda", "triton", "cpu", "reference"]


class CrossAttentionRequest(NamedTuple):
    """One validated call of `memattn.cross_attention`; the order is that of the op's schema.

    Attributes:
        query: [B, H, Lq, D], any strides.
        key: [B, H, Lk, D].
        value: [B, H, Lk, D].
        key_bias: Added to the scaled logits [B, Lk], or None.
        begin_scale: Multiplies the scaled logit of key 0 [B], or None.
        token: Token whose attention column is returned as a map [B] int64, or None.
        scale: Multiplies the logits.
        statistics: Whether token mass and token entropy are wanted.
        logsumexp: Whether each row's logsumexp is wanted (for a backward that recomputes).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    key_bias: Tensor | None
    begin_scale: Tensor | None
    token: Tensor | None
    scale: float
    statistics: bool
    logsumexp: bool


class CrossAttentionResult(NamedTuple):
    """What `memattn.cross_attention` returns; fields that were not asked for are None.

    Attributes:
        output: Attention output [B, H, Lq, D] in the query's dtype, laid out so that the
            (B, Lq, H * D) view costs no copy.
        token_mass: Sum over queries of p(query, token) [B, H, Lk], float32; a row's total is Lq.
        token_entropy: Sum over queries of -p ln p [B, H, Lk], float32, nats; its sum over tokens
            divided by Lq is the mean row entropy.
        token_map: The chosen token's attention column [B, H, Lq], float32.
        logsumexp: Natural log of each row's softmax denominator [B, H, Lq], float32.
    """

    output: Tensor
    token_mass: Tensor | None
    token_entropy: Tensor | None
    token_map: Tensor | None
    logsumexp: Tensor | None


class ColumnStatisticsRequest(NamedTuple):
    """One validated call of `memattn.column_statistics`; the order is that of the op's schema.

    Attributes:
        query: [B, H, Lq, D], any strides.
        key_columns: [B, H, Lc, D].
        logsumexp: Natural log of each row's softmax denominator [B, H, Lq], or None.
        key_bias: Added to the scaled logits [B, Lc], or None.
        token: Column that is returned as a map [B] int64, or None.
        scale: Multiplies the logits.
    """

    query: Tensor
    key_columns: Tensor
    logsumexp: Tensor | None
    key_bias: Tensor | None
    token: Tensor | None
    scale: float


class ColumnStatisticsResult(NamedTuple):
    """What `memattn.column_statistics` returns.

    Attributes:
        token_mass: Sum over queries of p(query, column) [B, H, Lc], float32 (float64 where the
            reference is given float64, like the others).
        token_entropy: Sum over queries of -p ln p [B, H, Lc], float32, nats.
        token_map: The chosen column [B, H, Lq], float32, or None.
    """

    token_mass: Tensor
    token_entropy: Tensor
    token_map: Tensor | None


@dataclass(frozen=True)
class Citation:
    """Where a published method comes from, and where this implementation departs from it.

    Attributes:
        title: Title of the paper.
        authors: Authors as cited, e.g. "Ren et al.".
        venue: Venue and year, e.g. "ECCV 2024".
        arxiv: arXiv identifier.
        equation: The formula implemented and where it stands in the paper or its code.
        deviations: One sentence for each departure from the paper or the authors' code, with why.
    """

    title: str
    authors: str
    venue: str
    arxiv: str
    equation: str
    deviations: tuple[str, ...] = field(default=())
