// Statistics of a few columns for one range of query blocks. Included inside an instruction set's
// namespace.
//
// With the rows' logsumexp one pass over a strip's logits is all: ln p = s - logsumexp. Without it
// the columns' own softmax comes first.

// Where exponential() is infinite.
constexpr float kHighest = 89.0f;

// Logarithms of probabilities, in the range of exponential(). They are above 0 where a logsumexp is
// not that of its row, to which no end is set.
inline Floats bounded(Floats log_prob) {
  const Floats from_below = maximum(broadcast(kLowest), log_prob);  // keeps a nan
  return from_below > kHighest ? broadcast(kHighest) : from_below;
}

// The rows' logsumexp as their shift. It is infinite, of either sign, in a row without keys: there
// no column receives anything, whatever its logits.
template <typename Words>
inline void take_logsumexp(const Strip<Words>& strip, const float* logsumexp, int64_t rows,
                           int64_t stride) {
  for (int64_t row = 0; row < rows; ++row) {
    const bool has_no_keys = __builtin_isinf(logsumexp[row]);
    strip.shift[row] = has_no_keys ? 0.0f : logsumexp[row];
    if (!has_no_keys) continue;
    for (int64_t k = 0; k < stride; k += kLanes)
      store(strip.scores + row * stride + k, broadcast(-__builtin_inff()));
  }
}

template <typename Words>
inline void add_shifted(const Strip<Words>& strip, const Sums& sums, int64_t rows, int64_t stride) {
  add_statistics(sums, rows, stride, [&](int64_t row, int64_t at) {
    const Floats log_prob = bounded(load(strip.scores + at) - strip.shift[row]);
    return Terms{exponential(log_prob), -log_prob};
  });
}

template <typename Words>
inline void copy_shifted_column(const Strip<Words>& strip, float* to, int64_t token, int64_t rows,
                                int64_t stride) {
  float column[kStripPadded]{};
  for (int64_t row = 0; row < rows; ++row)
    column[row] = strip.scores[row * stride + token] - strip.shift[row];
  for (int64_t row = 0; row < kStripPadded; row += kLanes)
    store(column + row, exponential(bounded(load(column + row))));
  for (int64_t row = 0; row < rows; ++row) to[row] = column[row];
}

template <typename Words, typename Scalar>
void column_statistics_block(const ColumnStatistics& call, const Strip<Words>& strip, int64_t batch,
                             int64_t head, int64_t block) {
  const Logits& l = call.logits;
  const int64_t stride = padded(l.keys);
  const Sums sums = block_sums(call.sums, l, batch, head, block);
  const int64_t begin = block * kForwardBlock;
  const int64_t end = smaller(begin + kForwardBlock, l.queries);
  for (int64_t first = begin; first < end; first += kStrip) {
    const int64_t rows = smaller(kStrip, end - first);
    const int64_t row_number = (batch * l.heads + head) * l.queries + first;
    float* const map = call.token_map ? call.token_map + row_number : nullptr;
    score<Words, Scalar>(strip, l, batch, head, first, rows);
    if (call.logsumexp) {
      take_logsumexp(strip, call.logsumexp + row_number, rows, stride);
      add_shifted(strip, sums, rows, stride);
      if (map) copy_shifted_column(strip, map, call.token[batch], rows, stride);
    } else {
      softmax(strip, l, rows, [](int64_t, Floats) {});
      add_softmax(strip, sums, rows, stride);
      if (map) copy_column(strip, map, call.token[batch], rows, stride);
    }
  }
}

template <typename Words, typename Scalar>
void column_statistics_range(const ColumnStatistics& call, int64_t begin, int64_t end,
                             float* scratch) {
  const Logits& l = call.logits;
  Strip<Words> strip;
  strip.place(l, scratch);
  for_each_block(
      l, kForwardBlock, begin, end,
      [&](int64_t batch, int64_t head) { strip.keys.template pack<Scalar>(l, batch, head); },
      [&](int64_t batch, int64_t head, int64_t block) {
        column_statistics_block<Words, Scalar>(call, strip, batch, head, block);
      });
}
