// Logits, softmax and column sums of a strip of a few tiles of queries. Included inside an
// instruction set's namespace.
//
// Whole rows of logits are there: no running maximum, nothing to rescale. With 77 keys a strip
// stays in the first-level cache; more tiles share the cost of the sums, fewer leave room for the
// keys.

constexpr int64_t kStrip = 4 * kTileRows;  // queries taken at a time
static_assert(kForwardBlock % kStrip == 0);
constexpr int64_t kStripPadded = (kStrip + kLanes - 1) / kLanes * kLanes;

template <typename Words>
struct Strip {
  Keys<Words> keys;
  float* query;    // [kStrip, D] words along D
  float* scores;   // [kStrip, Lk]: logits, then logits minus their row's maximum
  float* weights;  // [kStrip, Lk]: their exponentials
  float* shift;    // [kStripPadded], one per row, like the next three: taken from its logits
  float* sum;      // of the exponentials
  float* inverse;  // of the sum
  float* log_sum;

  static int64_t size(const Logits& l) {
    return Keys<Words>::size(l) + kStrip * (Keys<Words>::stride(l) + 2 * padded(l.keys)) +
           4 * kStripPadded;
  }

  float* place(const Logits& l, float* scratch) {
    query = keys.place(l, scratch);
    scores = query + kStrip * Keys<Words>::stride(l);
    weights = scores + kStrip * padded(l.keys);
    shift = weights + kStrip * padded(l.keys);
    sum = shift + kStripPadded;
    inverse = sum + kStripPadded;
    log_sum = inverse + kStripPadded;
    return log_sum + kStripPadded;
  }
};

// Logits of `rows` queries from `first` on. The scale comes after the product: products of two
// 16-bit floats are exact.
template <typename Words, typename Scalar>
inline void score(const Strip<Words>& strip, const Logits& l, int64_t batch, int64_t head,
                  int64_t first, int64_t rows) {
  const int64_t stride = padded(l.keys);
  const int64_t query_stride = Keys<Words>::stride(l);
  const Keys<Words>& keys = strip.keys;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t row = 0; row < rows; ++row)
    pack_row<Words>(strip.query + row * query_stride,
                    row_of<Scalar>(l.query, batch, head, first + row), l.dim);
  // What is left of the last tile computes something, which nobody reads.
  for (int64_t i = rows * query_stride; i < tiles * kTileRows * query_stride; i += kLanes)
    store(strip.query + i, Floats{});
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const float* const query = strip.query + tile * kTileRows * query_stride;
    float* const scores = strip.scores + tile * kTileRows * stride;
    multiply<Words, kTileRows, Columns::kWhole>(
        query, query_stride, 1, keys.columns, stride, words<Words>(l.dim), stride,
        [&](int row, int64_t k, Floats sum) {
          store(scores + row * stride + k, sum * load(keys.factor + k) + load(keys.bias + k));
        });
    remove_padding(scores, l.keys);
  }
}

// Softmax of each row, all but the division: shifted logits into `scores`, exponentials into
// `weights`, and `also(place, exponentials)` for each vector of them.
template <typename Words, typename Also>
inline void softmax(const Strip<Words>& strip, const Logits& l, int64_t rows, const Also& also) {
  const int64_t stride = padded(l.keys);
  for (int64_t row = 0; row < rows; ++row) {
    const float* const scores = strip.scores + row * stride;
    Floats top = load(scores);
    for (int64_t k = kLanes; k < stride; k += kLanes) top = maximum(top, load(scores + k));
    const float greatest = maximum_of_lanes(top)[0];
    // Where a bias has removed every key the shift would be -inf - -inf = nan.
    const bool is_removed = l.key_bias && greatest == -__builtin_inff();
    strip.shift[row] = is_removed ? 0.0f : greatest;
  }
  for (int64_t row = 0; row < rows; ++row) {
    float* const scores = strip.scores + row * stride;
    float* const weights = strip.weights + row * stride;
    const float top = strip.shift[row];
    Floats sum{};
    for (int64_t k = 0; k < stride; k += kLanes) {
      const Floats shifted = maximum(broadcast(kLowest), load(scores + k) - top);  // keeps a nan
      store(scores + k, shifted);
      const Floats weight = exponential(shifted);
      store(weights + k, weight);
      also(row * stride + k, weight);
      sum += weight;
    }
    strip.sum[row] = sum_of_lanes(sum)[0];
  }
  for (int64_t row = 0; row < kStripPadded; row += kLanes) {
    const Floats sum = load(strip.sum + row);
    const Floats divisor = sum == 0.0f ? Floats{} + 1.0f : sum;
    store(strip.inverse + row, 1.0f / divisor);
    store(strip.log_sum + row, logarithm(divisor));
  }
}

// A block's own sums, which begin as zeros.
inline Sums block_sums(const Sums& all, const Logits& l, int64_t batch, int64_t head,
                       int64_t block) {
  const int64_t blocks = blocks_of(l.queries, kForwardBlock);
  const int64_t first = ((batch * l.heads + head) * blocks + block) * all.stride;
  const Sums sums = {all.mass + first, all.entropy + first, all.stride};
  for (int64_t k = 0; k < padded(l.keys); k += kLanes) {
    store(sums.mass + k, Floats{});
    store(sums.entropy + k, Floats{});
  }
  return sums;
}

struct Terms {
  Floats prob;
  Floats surprise;  // -ln p
};

// Add p and -p ln p of the strip's rows to their block's columns, `vectors` of them from column k
// on; `terms(row, place)` are those of one vector.
template <int vectors, typename Function>
inline void add_panel(const Sums& sums, int64_t rows, int64_t stride, int64_t k,
                      const Function& terms) {
  Floats strip_mass[vectors]{}, strip_entropy[vectors]{};
  for (int64_t row = 0; row < rows; ++row) {
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) {
      const Terms term = terms(row, row * stride + k + c * kLanes);
      strip_mass[c] += term.prob;
      strip_entropy[c] += term.prob * term.surprise;
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < vectors; ++c) {
    const int64_t at = k + c * kLanes;
    store(sums.mass + at, load(sums.mass + at) + strip_mass[c]);
    store(sums.entropy + at, load(sums.entropy + at) + strip_entropy[c]);
  }
}

template <typename Function>
inline void add_statistics(const Sums& sums, int64_t rows, int64_t stride, const Function& terms) {
  int64_t k = 0;
  for (; k + kTileVectors * kLanes <= stride; k += kTileVectors * kLanes)
    add_panel<kTileVectors>(sums, rows, stride, k, terms);
  for (; k < stride; k += kLanes) add_panel<1>(sums, rows, stride, k, terms);
}

// The same after `softmax`. With p = w / l and ln p = x - ln l for the shifted logits x, -p ln p =
// p (ln l - x): logsumexp - logit would lose the digits that a large maximum takes.
template <typename Words>
inline void add_softmax(const Strip<Words>& strip, const Sums& sums, int64_t rows, int64_t stride) {
  add_statistics(sums, rows, stride, [&](int64_t row, int64_t at) {
    return Terms{load(strip.weights + at) * strip.inverse[row],
                 strip.log_sum[row] - load(strip.scores + at)};
  });
}

// The column of one token after `softmax`.
template <typename Words>
inline void copy_column(const Strip<Words>& strip, float* to, int64_t token, int64_t rows,
                        int64_t stride) {
  for (int64_t row = 0; row < rows; ++row)
    to[row] = strip.weights[row * stride + token] * strip.inverse[row];
}
