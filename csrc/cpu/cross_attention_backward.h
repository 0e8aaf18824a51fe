// Backward of one range of query blocks, from the logsumexp of the forward. Included inside an
// instruction set's namespace.
//
// With P = exp(S - logsumexp) and dP = dO V^T:
//
//     dS = P (dP - rowsum(P dP))    dQ = scale dS K    dK = scale dS^T Q    dV = P^T dO
//
// where, for key 0, scale is times begin_scale. dQ is written; dK and dV of a block are sums over
// its queries, which go to the block's own part.

constexpr int64_t kBackwardStrip = 60;  // queries whose P and dS are kept at a time
static_assert(kBackwardStrip % kTileRows == 0);

struct BackwardScratch {
  Keys<Singles> keys;
  float* value;          // [Lk, padded D]
  float* value_columns;  // [padded D, padded Lk]
  float* query;          // [kBackwardStrip, padded D]
  float* grad_output;    // [kBackwardStrip, padded D]
  float* probs;          // [kBackwardStrip, padded Lk]
  float* grad_scores;    // [kBackwardStrip, padded Lk]: dP, then scale dS

  static int64_t size(const Logits& l) {
    return Keys<Singles>::size(l) + values_size<Singles>(l) + padded(l.dim) * padded(l.keys) +
           2 * kBackwardStrip * (padded(l.dim) + padded(l.keys));
  }

  BackwardScratch(const Logits& l, float* scratch) {
    value = keys.place(l, scratch);
    value_columns = value + values_size<Singles>(l);
    query = value_columns + padded(l.dim) * padded(l.keys);
    grad_output = query + kBackwardStrip * padded(l.dim);
    probs = grad_output + kBackwardStrip * padded(l.dim);
    grad_scores = probs + kBackwardStrip * padded(l.keys);
  }
};

// P and dS of kTileRows rows of the strip, the first `rows` of which exist.
template <typename Scalar>
inline void tile_gradients(const Backward& call, const BackwardScratch& scratch, int64_t batch,
                           int64_t head, int64_t first, int64_t row, int rows) {
  const Logits& l = call.logits;
  const int64_t stride = padded(l.keys);
  const int64_t dim_stride = padded(l.dim);
  float* const query = scratch.query + row * dim_stride;
  float* const grad_output = scratch.grad_output + row * dim_stride;
  float* const probs = scratch.probs + row * stride;
  float* const grad_scores = scratch.grad_scores + row * stride;
  float logsumexp[kTileRows]{};
  for (int r = 0; r < kTileRows; ++r) {
    float* const query_row = query + r * dim_stride;
    float* const grad_row = grad_output + r * dim_stride;
    if (r >= rows) {  // computes something, which nobody reads
      for (int64_t d = 0; d < dim_stride; d += kLanes) {
        store(query_row + d, Floats{});
        store(grad_row + d, Floats{});
      }
      continue;
    }
    pack_row<Singles>(query_row, row_of<Scalar>(l.query, batch, head, first + r), l.dim);
    pack_row<Singles>(grad_row, row_of<Scalar>(call.grad_output, batch, head, first + r), l.dim);
    logsumexp[r] = call.logsumexp[(batch * l.heads + head) * l.queries + first + r];
  }
  const float* const factor = scratch.keys.factor;
  const float* const bias = scratch.keys.bias;
  multiply<Singles, kTileRows, Columns::kWhole>(query, dim_stride, 1, scratch.keys.columns, stride,
                                                l.dim, stride, [&](int r, int64_t k, Floats sum) {
                                                  store(probs + r * stride + k,
                                                        sum * load(factor + k) + load(bias + k));
                                                });
  remove_padding(probs, l.keys);
  multiply<Singles, kTileRows, Columns::kWhole>(
      grad_output, dim_stride, 1, scratch.value_columns, stride, l.dim, stride,
      [&](int r, int64_t k, Floats sum) { store(grad_scores + r * stride + k, sum); });
  for (int r = 0; r < kTileRows; ++r) {
    float* const p = probs + r * stride;
    float* const grad = grad_scores + r * stride;
    Floats sum{}, weighted_sum{};
    for (int64_t k = 0; k < stride; k += kLanes) {
      const Floats shifted = maximum(broadcast(kLowest), load(p + k) - logsumexp[r]);
      const Floats weight = exponential(shifted);
      store(p + k, weight);
      sum += weight;
      weighted_sum += weight * load(grad + k);
    }
    // One but for the rounding of logsumexp, and the forward's order of summation, which all of the
    // row would share; or 0, without any key.
    const float total = sum_of_lanes(sum)[0];
    const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
    const float mean = sum_of_lanes(weighted_sum)[0] * inverse;
    for (int64_t k = 0; k < stride; k += kLanes) {
      const Floats weight = load(p + k) * inverse;
      store(p + k, weight);
      store(grad + k, weight * (load(grad + k) - mean) * load(factor + k));
    }
  }
  multiply<Singles, kTileRows, Columns::kHalf>(
      grad_scores, stride, 1, scratch.keys.rows, dim_stride, l.keys, l.dim,
      [&](int r, int64_t d, auto sum) {
        if (r >= rows) return;
        constexpr int lanes = sizeof(sum) / sizeof(float);
        store<lanes>(row_of<Scalar>(call.grad_query, batch, head, first + r) + d, sum);
      });
}

// total[k][d] += sum over the strip's rows of left[row][k] right[row][d], for every key.
inline void add_outer(const Logits& l, const float* left, const float* right, int64_t rows,
                      float* total) {
  const auto add = [&](int64_t first) {
    return [=, &l](int k, int64_t d, auto sum) {
      constexpr int lanes = sizeof(sum) / sizeof(float);
      float* const to = total + (first + k) * l.dim + d;
      store<lanes>(to, load<lanes>(to) + sum);
    };
  };
  int64_t k = 0;
  for (; k + kTileRows <= l.keys; k += kTileRows)
    multiply<Singles, kTileRows, Columns::kHalf>(left + k, 1, padded(l.keys), right, padded(l.dim),
                                                 rows, l.dim, add(k));
  for (; k < l.keys; ++k)
    multiply<Singles, 1, Columns::kHalf>(left + k, 1, padded(l.keys), right, padded(l.dim), rows,
                                         l.dim, add(k));
}

template <typename Scalar>
void backward_block(const Backward& call, const BackwardScratch& scratch, int64_t batch,
                    int64_t head, int64_t block) {
  const Logits& l = call.logits;
  const int64_t size = l.keys * l.dim;
  const int64_t unit = (batch * l.heads + head) * blocks_of(l.queries, kBackwardBlock) + block;
  float* const grad_key = call.grad_key + unit * size;
  float* const grad_value = call.grad_value + unit * size;
  for (int64_t i = 0; i < size; i += kHalfLanes) {
    store<kHalfLanes>(grad_key + i, HalfFloats{});
    store<kHalfLanes>(grad_value + i, HalfFloats{});
  }
  const int64_t begin = block * kBackwardBlock;
  const int64_t end = smaller(begin + kBackwardBlock, l.queries);
  for (int64_t first = begin; first < end; first += kBackwardStrip) {
    const int64_t rows = smaller(kBackwardStrip, end - first);
    for (int64_t row = 0; row < rows; row += kTileRows)
      tile_gradients<Scalar>(call, scratch, batch, head, first + row, row,
                             static_cast<int>(smaller(kTileRows, rows - row)));
    add_outer(l, scratch.grad_scores, scratch.query, rows, grad_key);
    add_outer(l, scratch.probs, scratch.grad_output, rows, grad_value);
  }
}

template <typename Scalar>
void backward_range(const Backward& call, int64_t begin, int64_t end, float* scratch_floats) {
  const Logits& l = call.logits;
  const BackwardScratch scratch(l, scratch_floats);
  for_each_block(
      l, kBackwardBlock, begin, end,
      [&](int64_t batch, int64_t head) {
        scratch.keys.pack<Scalar>(l, batch, head);
        pack_values<Singles, Scalar>(scratch.value, l, call.value, batch, head);
        pack_transposed(scratch.value_columns, scratch.value, l.keys, l.dim, padded(l.dim));
      },
      [&](int64_t batch, int64_t head, int64_t block) {
        backward_block<Scalar>(call, scratch, batch, head, block);
      });
}
