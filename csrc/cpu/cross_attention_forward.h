// Forward of one range of query blocks. Included inside an instruction set's namespace.
//
// A strip of a few tiles of queries at a time: scores by multiply, softmax in one shot (whole rows
// of scores are there: no running maximum, nothing to rescale), output by multiply. With 77 keys a
// strip stays in the first-level cache; more tiles share the cost of the statistics' sums, fewer
// leave room for the keys.

constexpr int64_t kStrip = 4 * kTileRows;  // queries taken at a time
static_assert(kForwardBlock % kStrip == 0);
constexpr int64_t kStripPadded = (kStrip + kLanes - 1) / kLanes * kLanes;

template <typename Words>
struct ForwardScratch {
  Head<Words> head;
  float* query;         // [kStrip, D] words along D
  float* scores;        // [kStrip, Lk]: logits, then logits minus their row's maximum
  float* weights;       // [kStrip, Lk]: their exponentials
  float* weight_words;  // [kStrip, Lk]: the same in words along Lk
  float* maximum;       // [kStripPadded], one per row, like the next three
  float* sum;           // of the exponentials
  float* inverse;       // of the sum
  float* log_sum;

  static int64_t size(const Attention& a) {
    const int64_t in_words = Words::kPerWord == 1 ? 0 : padded(a.keys) / Words::kPerWord;
    return Head<Words>::size(a) +
           kStrip * (Head<Words>::key_stride(a) + 2 * padded(a.keys) + in_words) + 4 * kStripPadded;
  }

  ForwardScratch(const Attention& a, float* scratch) {
    query = head.place(a, scratch);
    scores = query + kStrip * Head<Words>::key_stride(a);
    weights = scores + kStrip * padded(a.keys);
    weight_words = Words::kPerWord == 1 ? weights : weights + kStrip * padded(a.keys);
    maximum = weight_words + kStrip * padded(a.keys) / Words::kPerWord;
    sum = maximum + kStripPadded;
    inverse = sum + kStripPadded;
    log_sum = inverse + kStripPadded;
  }
};

// Logits of `tiles` tiles. The scale comes after the product: products of two 16-bit floats are
// exact.
template <typename Words>
inline void score(const ForwardScratch<Words>& scratch, const Attention& a, int64_t tiles) {
  const int64_t stride = padded(a.keys);
  const int64_t query_stride = Head<Words>::key_stride(a);
  const Head<Words>& head = scratch.head;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const float* const query = scratch.query + tile * kTileRows * query_stride;
    float* const scores = scratch.scores + tile * kTileRows * stride;
    multiply<Words, kTileRows, Columns::kWhole>(
        query, query_stride, 1, head.key_columns, stride, words<Words>(a.dim), stride,
        [&](int row, int64_t k, Floats sum) {
          store(scores + row * stride + k, sum * load(head.factor + k) + load(head.bias + k));
        });
    remove_padding(scores, a.keys);
  }
}

// Softmax of each row, all but the division: shifted logits into `scores`, exponentials into
// `weights`.
template <typename Words>
inline void softmax(const ForwardScratch<Words>& scratch, const Attention& a, int64_t rows) {
  const int64_t stride = padded(a.keys);
  for (int64_t row = 0; row < rows; ++row) {
    const float* const scores = scratch.scores + row * stride;
    Floats top = load(scores);
    for (int64_t k = kLanes; k < stride; k += kLanes) top = maximum(top, load(scores + k));
    const float greatest = maximum_of_lanes(top)[0];
    // Where a bias has removed every key the shift would be -inf - -inf = nan.
    const bool is_removed = a.key_bias && greatest == -__builtin_inff();
    scratch.maximum[row] = is_removed ? 0.0f : greatest;
  }
  for (int64_t row = 0; row < rows; ++row) {
    float* const scores = scratch.scores + row * stride;
    float* const weights = scratch.weights + row * stride;
    const float top = scratch.maximum[row];
    Floats sum{};
    for (int64_t k = 0; k < stride; k += kLanes) {
      const Floats shifted = maximum(broadcast(kLowest), load(scores + k) - top);  // keeps a nan
      store(scores + k, shifted);
      const Floats weight = exponential(shifted);
      store(weights + k, weight);
      if constexpr (Words::kPerWord > 1)
        Words::store_along(scratch.weight_words, row * stride + k, weight);
      sum += weight;
    }
    scratch.sum[row] = sum_of_lanes(sum)[0];
  }
  for (int64_t row = 0; row < kStripPadded; row += kLanes) {
    const Floats sum = load(scratch.sum + row);
    const Floats divisor = sum == 0.0f ? Floats{} + 1.0f : sum;
    store(scratch.inverse + row, 1.0f / divisor);
    store(scratch.log_sum + row, logarithm(divisor));
  }
}

// Add p and -p ln p of the strip's rows to their block's columns, `vectors` of them from column k
// on. With p = w / l and ln p = x - ln l for the shifted logits x, -p ln p = p (ln l - x):
// logsumexp - logit would lose the digits that a large maximum takes.
template <int vectors, typename Words>
inline void add_panel(const ForwardScratch<Words>& scratch, int64_t rows, int64_t stride, int64_t k,
                      float* mass, float* entropy) {
  Floats strip_mass[vectors]{}, strip_entropy[vectors]{};
  for (int64_t row = 0; row < rows; ++row) {
    const Floats inverse = broadcast(scratch.inverse[row]);
    const Floats log_sum = broadcast(scratch.log_sum[row]);
    const int64_t first = row * stride + k;
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) {
      const Floats prob = load(scratch.weights + first + c * kLanes) * inverse;
      strip_mass[c] += prob;
      strip_entropy[c] += prob * (log_sum - load(scratch.scores + first + c * kLanes));
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < vectors; ++c) {
    const int64_t at = k + c * kLanes;
    store(mass + at, load(mass + at) + strip_mass[c]);
    store(entropy + at, load(entropy + at) + strip_entropy[c]);
  }
}

template <typename Words>
inline void add_statistics(const ForwardScratch<Words>& scratch, int64_t rows, int64_t stride,
                           float* mass, float* entropy) {
  int64_t k = 0;
  for (; k + kTileVectors * kLanes <= stride; k += kTileVectors * kLanes)
    add_panel<kTileVectors>(scratch, rows, stride, k, mass, entropy);
  for (; k < stride; k += kLanes) add_panel<1>(scratch, rows, stride, k, mass, entropy);
}

template <typename Words, typename Scalar>
void forward_block(const Forward& call, const ForwardScratch<Words>& scratch, int64_t batch,
                   int64_t head, int64_t block) {
  const Attention& a = call.attention;
  const int64_t stride = padded(a.keys);
  const int64_t query_stride = Head<Words>::key_stride(a);
  const int64_t unit = (batch * a.heads + head) * blocks_of(a.queries, kForwardBlock) + block;
  float* const mass = call.mass ? call.mass + unit * call.statistics_stride : nullptr;
  float* const entropy = call.mass ? call.entropy + unit * call.statistics_stride : nullptr;
  if (mass) {
    for (int64_t k = 0; k < stride; k += kLanes) {
      store(mass + k, Floats{});
      store(entropy + k, Floats{});
    }
  }
  const int64_t begin = block * kForwardBlock;
  const int64_t end = smaller(begin + kForwardBlock, a.queries);
  for (int64_t first = begin; first < end; first += kStrip) {
    const int64_t rows = smaller(kStrip, end - first);
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
    for (int64_t row = 0; row < rows; ++row)
      pack_row<Words>(scratch.query + row * query_stride,
                      row_of<Scalar>(a.query, batch, head, first + row), a.dim);
    // What is left of the last tile computes something, which nobody reads.
    for (int64_t i = rows * query_stride; i < tiles * kTileRows * query_stride; i += kLanes)
      store(scratch.query + i, Floats{});
    score(scratch, a, tiles);
    softmax(scratch, a, rows);
    if (mass) add_statistics(scratch, rows, stride, mass, entropy);
    const int64_t row_number = (batch * a.heads + head) * a.queries + first;
    for (int64_t row = 0; row < rows; ++row) {
      if (call.token_map) {
        const float weight = scratch.weights[row * stride + call.token[batch]];
        call.token_map[row_number + row] = weight * scratch.inverse[row];
      }
      if (call.logsumexp)
        call.logsumexp[row_number + row] = scratch.maximum[row] + scratch.log_sum[row];
    }
    const int64_t weight_stride = stride / Words::kPerWord;
    for (int64_t tile = 0; tile < rows; tile += kTileRows) {
      multiply<Words, kTileRows, Columns::kHalf>(
          scratch.weight_words + tile * weight_stride, weight_stride, 1, scratch.head.value,
          padded(a.dim), words<Words>(a.keys), a.dim, [&](int row, int64_t d, auto sum) {
            if (tile + row >= rows) return;
            constexpr int lanes = sizeof(sum) / sizeof(float);
            store<lanes>(row_of<Scalar>(call.output, batch, head, first + tile + row) + d,
                         sum * scratch.inverse[tile + row]);
          });
    }
  }
}

template <typename Words, typename Scalar>
void forward_range(const Forward& call, int64_t begin, int64_t end, float* scratch_floats) {
  const Attention& a = call.attention;
  ForwardScratch<Words> scratch(a, scratch_floats);
  const int64_t blocks = blocks_of(a.queries, kForwardBlock);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t head = unit / blocks % a.heads;
    const int64_t batch = unit / blocks / a.heads;
    const int64_t block = unit % blocks;
    if (unit == begin || block == 0) scratch.head.template pack<Scalar>(a, batch, head);
    forward_block<Words, Scalar>(call, scratch, batch, head, block);
  }
}
