"""What the kernels share: tiles in two parts, logits, softmax, and sums over queries.

A tile of keys, or of depth, has a first part and where that saves work a second (`tiles.parts`). A
second part of no size is passed on as the first and never read.
"""

import triton
import triton.language as tl

# Triton would compile a kernel anew for numbers that are 1 or multiples of 16, and for operands
# that happen not to be aligned: a part of a batch would run another binary than the whole.
_STRIDES = [f"stride_{tensor}{axis}" for tensor in "gqkvn" for axis in "bhl"]
UNSPECIALISED = ["heads", "queries", "keys", "columns", "chunks", "tiles", *_STRIDES]
UNALIGNED = ["bias_ptr", "begin_scale_ptr", "token_ptr", "normaliser_ptr"]

_LOG2_E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts: the first has so few bits that its product with a whole number has no rounding.
_LN_2_HIGH = tl.constexpr(355 / 512)
_LN_2_LOW = tl.constexpr(0.6931471805599453 - 355 / 512)
# exp of less is 0 in float32, so -p ln p is 0 wherever this cuts, and never 0 * inf.
_LEAST_LOGIT = tl.constexpr(-256.0)


@triton.jit
def load_queries(
    head_ptr, rows, stride, DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr
):
    """Both parts of rows that all exist, [rows, DIM_0] and [rows, DIM_1]; 0 beyond DIM."""
    part_0 = _load_part(head_ptr, rows, stride, None, 0, DIM_0, DIM)
    part_1 = part_0
    if DIM_1:
        part_1 = _load_part(head_ptr, rows, stride, None, DIM_0, DIM_1, DIM)
    return part_0, part_1


@triton.jit
def load_keys(
    head_ptr, rows, stride, keys, DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr
):
    """As `load_queries`, and 0 in rows from `keys` on."""
    part_0 = _load_part(head_ptr, rows, stride, keys, 0, DIM_0, DIM)
    part_1 = part_0
    if DIM_1:
        part_1 = _load_part(head_ptr, rows, stride, keys, DIM_0, DIM_1, DIM)
    return part_0, part_1


@triton.jit
def _load_part(
    head_ptr, rows, stride, end, FIRST: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr
):
    """Columns FIRST to FIRST + WIDTH of rows; only what may be missing is tested."""
    columns = FIRST + tl.arange(0, WIDTH)
    addresses = head_ptr + rows[:, None] * stride + columns[None, :]
    if end is None and FIRST + WIDTH <= DIM:
        part = tl.load(addresses)
    else:
        mask = (columns < DIM)[None, :]
        if end is not None:
            mask = mask & (rows < end)[:, None]
        part = tl.load(addresses, mask=mask, other=0.0)
    return part


@triton.jit
def store_rows(
    head_ptr, part_0, part_1, rows, stride, end,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr,
):  # fmt: skip
    """Write both parts of the rows before `end`, in the tensor's dtype."""
    store_part(head_ptr, part_0, rows, stride, end, 0, DIM_0, DIM)
    if DIM_1:
        store_part(head_ptr, part_1, rows, stride, end, DIM_0, DIM_1, DIM)


@triton.jit
def store_part(
    head_ptr, part, rows, stride, end,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Write columns FIRST to FIRST + WIDTH of the rows before `end`."""
    columns = FIRST + tl.arange(0, WIDTH)
    addresses = head_ptr + rows[:, None] * stride + columns[None, :]
    mask = (rows < end)[:, None]
    if FIRST + WIDTH > DIM:
        mask = mask & (columns < DIM)[None, :]
    tl.store(addresses, part.to(head_ptr.dtype.element_ty), mask=mask)


@triton.jit
def product(left_0, left_1, right_0, right_1, DIM_1: tl.constexpr, PRECISION: tl.constexpr):
    """Left @ right^T over both parts of the depth [left rows, right rows], float32."""
    result = tl.dot(left_0, tl.trans(right_0), input_precision=PRECISION)
    if DIM_1:
        result = tl.dot(left_1, tl.trans(right_1), result, input_precision=PRECISION)
    return result


@triton.jit
def largest_bias(bias_ptr, keys, ALL_KEYS: tl.constexpr):
    """The largest bias of a sample, or 0 if it is infinite: softmax does not depend on a shift.

    Without it the lowest finite bias would be -inf to base 2, and large ones would cost digits.
    """
    offsets = tl.arange(0, ALL_KEYS)
    bias = tl.load(bias_ptr + offsets, mask=offsets < keys, other=-float("inf"))
    top = tl.max(bias, axis=0)
    return tl.where(tl.abs(top) == float("inf"), 0.0, top)


@triton.jit
def logit_terms(
    bias_ptr, top, begin_scale_ptr, scale, offsets, keys,
    LOGIT_UNIT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_BEGIN: tl.constexpr,
):  # fmt: skip
    """Factor and shift [offsets] that make logits of products of query and key."""
    factor = tl.zeros_like(offsets).to(tl.float32) + scale
    if HAS_BEGIN:
        factor = tl.where(offsets == 0, factor * tl.load(begin_scale_ptr), factor)
    shift = tl.zeros_like(factor)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + offsets, mask=offsets < keys, other=0.0)
        shift = (bias - top) * LOGIT_UNIT
    return factor, shift


@triton.jit
def logits(products, factor, shift, offsets, keys, IS_WHOLE: tl.constexpr):
    """Logits [rows, keys]; -inf beyond the last key."""
    result = products * factor[None, :] + shift[None, :]
    if not IS_WHOLE:
        # Not by way of the shift: a query of inf has products of nan with keys that are not there.
        result = tl.where((offsets < keys)[None, :], result, -float("inf"))
    return result


@triton.jit
def exponential(logits, LOGIT_UNIT: tl.constexpr):
    """The exponentials of logits in their unit."""
    if LOGIT_UNIT != 1.0:
        return tl.exp2(logits)
    # A rounded product with log2 e would cost e^-100 six of its bits.
    near = tl.clamp(logits, -200.0, 200.0, propagate_nan=tl.PropagateNan.ALL)
    power = tl.floor(near * _LOG2_E + 0.5)
    rest = (near - power * _LN_2_HIGH) - power * _LN_2_LOW
    return tl.exp2(rest * _LOG2_E) * tl.exp2(power)


@triton.jit
def logarithm(total, LOGIT_UNIT: tl.constexpr):
    """What `exponential` is undone by."""
    return tl.log(total) if LOGIT_UNIT == 1.0 else tl.log2(total)


@triton.jit
def take_in(row_max, total, logits, LOGIT_UNIT: tl.constexpr):
    """Go on with the softmax of rows over one more tile of keys.

    Gives the rows' largest logit and the sum of weights below it, both with the tile; the tile's
    weights; and the factor that takes sums up to here below the new largest logit.
    """
    new_max = tl.maximum(row_max, tl.max(logits, axis=1))
    # As long as a row has no keys, -inf - -inf would be nan.
    finite_max = tl.where(new_max == -float("inf"), 0.0, new_max)
    weights = exponential(logits - finite_max[:, None], LOGIT_UNIT)
    shrink = exponential(row_max - finite_max, LOGIT_UNIT)
    return new_max, total * shrink + tl.sum(weights, axis=1), weights, shrink


@triton.jit
def add_to_sums(
    mass, entropy, weights, shifted, inverse, log_total, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Add p and -p log p of a tile [ROWS, COLUMNS] to their sums over its rows.

    p = weights * inverse and -log p = log_total - shifted, in the unit of the logits. The sums are
    [ROWS // 16, 8, COLUMNS]: tensor cores leave rows r and r + 8 of every 16 in one thread, so no
    thread waits for another (but where products come out of tensor memory).
    """
    # -log p times the inverse: one operation for each number instead of two.
    shifted = tl.maximum(shifted, _LEAST_LOGIT)
    scaled = (log_total * inverse)[:, None] - shifted * inverse[:, None]
    inverse = tl.broadcast_to(inverse[:, None], [ROWS, COLUMNS])
    weights_a, weights_b = _pairs_of_rows(weights, ROWS, COLUMNS)
    inverse_a, inverse_b = _pairs_of_rows(inverse, ROWS, COLUMNS)
    scaled_a, scaled_b = _pairs_of_rows(scaled, ROWS, COLUMNS)
    mass = mass + weights_a * inverse_a
    mass = mass + weights_b * inverse_b
    entropy = entropy + weights_a * scaled_a
    entropy = entropy + weights_b * scaled_b
    return mass, entropy


@triton.jit
def _pairs_of_rows(tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows r and r + 8 of every 16, two tiles [ROWS // 16, 8, COLUMNS]."""
    sixteens = tl.reshape(tile, [ROWS // 16, 2, 8, COLUMNS])
    return tl.split(tl.permute(sixteens, (0, 2, 3, 1)))


@triton.jit
def total_rows(sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sums of `add_to_sums` as one row [COLUMNS]."""
    return tl.sum(tl.reshape(sums, [ROWS // 2, COLUMNS]), axis=0)
