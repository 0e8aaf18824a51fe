// Forward of one range of query blocks. Included inside an instruction set's namespace.
//
// A strip of a few tiles of queries at a time: scores by multiply, softmax in one shot (all keys
// are there: no running maximum, nothing to rescale), output by multiply. A strip's scores never
// leave the first-level cache; more tiles share the cost of the statistics' sums, fewer leave room
// for the keys.

constexpr int64_t kStrip = kStripTiles * kTileRows;  // queries taken at a time
constexpr int64_t kStripPadded = (kStrip + kLanes - 1) / kLanes * kLanes;

struct ForwardScratch {
  Head head;
  float* query;    // [kStrip, padded D]
  float* scores;   // [kStrip, padded Lk]: logits, then logits minus their row's maximum
  float* weights;  // [kStrip, padded Lk]: their exponentials
  float* maximum;  // [kStripPadded], one per row, like the next three
  float* sum;      // of the exponentials
  float* inverse;  // of the sum
  float* log_sum;
  float* lost;  // [2, padded Lk]: see add_compensated

  static int64_t size(const Attention& a) {
    return Head::size(a) + kStrip * (padded(a.dim) + 2 * padded(a.keys)) + 4 * kStripPadded +
           2 * padded(a.keys);
  }

  ForwardScratch(const Attention& a, float* scratch) {
    query = head.place(a, scratch);
    scores = query + kStrip * padded(a.dim);
    weights = scores + kStrip * padded(a.keys);
    maximum = weights + kStrip * padded(a.keys);
    sum = maximum + kStripPadded;
    inverse = sum + kStripPadded;
    log_sum = inverse + kStripPadded;
    lost = log_sum + kStripPadded;
  }
};

// Logits of `tiles` tiles.
inline void score(const ForwardScratch& scratch, const Attention& a, int64_t tiles) {
  const int64_t stride = padded(a.keys);
  const float* const bias = scratch.head.bias;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const float* const query = scratch.query + tile * kTileRows * padded(a.dim);
    float* const scores = scratch.scores + tile * kTileRows * stride;
    multiply<kTileRows, Columns::kWhole>(query, padded(a.dim), 1, scratch.head.key_columns, stride,
                                         a.dim, stride, [&](int row, int64_t k, Floats sum) {
                                           store(scores + row * stride + k,
                                                 sum * a.scale + load(bias + k));
                                         });
  }
}

// Softmax of each row, all but the division: shifted logits into `scores`, exponentials into
// `weights`.
inline void softmax(const ForwardScratch& scratch, int64_t rows, int64_t stride) {
  for (int64_t row = 0; row < rows; ++row) {
    const float* const scores = scratch.scores + row * stride;
    Floats top = load(scores);
    for (int64_t k = kLanes; k < stride; k += kLanes) top = maximum(top, load(scores + k));
    const float greatest = maximum_of_lanes(top)[0];
    // Without any key the shift would be -inf - -inf = nan.
    scratch.maximum[row] = greatest == -__builtin_inff() ? 0.0f : greatest;
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

// Kahan's sum: `lost` keeps what the additions so far have rounded away.
inline void add_compensated(float* sum, float* lost, Floats value) {
  const Floats before = load(sum);
  const Floats corrected = value - load(lost);
  const Floats after = before + corrected;
  store(sum, after);
  store(lost, (after - before) - corrected);
}

// Add p and -p ln p of the strip's rows to their block's columns. With p = w / l and ln p = x - ln
// l for the shifted logits x, -p ln p = p (ln l - x): logsumexp - logit would lose the digits that
// a large maximum takes.
inline void add_statistics(const ForwardScratch& scratch, int64_t rows, int64_t stride, float* mass,
                           float* entropy) {
  for (int64_t k = 0; k < stride; k += kLanes) {
    Floats strip_mass{}, strip_entropy{};
    for (int64_t row = 0; row < rows; ++row) {
      const Floats prob = load(scratch.weights + row * stride + k) * scratch.inverse[row];
      strip_mass += prob;
      strip_entropy += prob * (scratch.log_sum[row] - load(scratch.scores + row * stride + k));
    }
    add_compensated(mass + k, scratch.lost + k, strip_mass);
    add_compensated(entropy + k, scratch.lost + stride + k, strip_entropy);
  }
}

template <typename Scalar>
void forward_block(const Forward& call, const ForwardScratch& scratch, int64_t batch, int64_t head,
                   int64_t block) {
  const Attention& a = call.attention;
  const int64_t stride = padded(a.keys);
  const int64_t dim_stride = padded(a.dim);
  const int64_t unit = (batch * a.heads + head) * blocks_of(a.queries, kForwardBlock) + block;
  float* const mass = call.mass ? call.mass + unit * call.statistics_stride : nullptr;
  float* const entropy = call.mass ? call.entropy + unit * call.statistics_stride : nullptr;
  if (mass) {
    for (int64_t k = 0; k < stride; k += kLanes) {
      store(mass + k, Floats{});
      store(entropy + k, Floats{});
      store(scratch.lost + k, Floats{});
      store(scratch.lost + stride + k, Floats{});
    }
  }
  const int64_t begin = block * kForwardBlock;
  const int64_t end = smaller(begin + kForwardBlock, a.queries);
  for (int64_t first = begin; first < end; first += kStrip) {
    const int64_t rows = smaller(kStrip, end - first);
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
    for (int64_t row = 0; row < rows; ++row)
      pack_row(scratch.query + row * dim_stride, row_of<Scalar>(a.query, batch, head, first + row),
               a.dim, 1.0f);
    // What is left of the last tile computes something, which nobody reads.
    for (int64_t i = rows * dim_stride; i < tiles * kTileRows * dim_stride; i += kLanes)
      store(scratch.query + i, Floats{});
    score(scratch, a, tiles);
    softmax(scratch, rows, stride);
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
    for (int64_t tile = 0; tile < rows; tile += kTileRows) {
      multiply<kTileRows, Columns::kHalf>(
          scratch.weights + tile * stride, stride, 1, scratch.head.value, dim_stride, a.keys, a.dim,
          [&](int row, int64_t d, auto sum) {
            if (tile + row >= rows) return;
            constexpr int lanes = sizeof(sum) / sizeof(float);
            store<lanes>(row_of<Scalar>(call.output, batch, head, first + tile + row) + d,
                         sum * scratch.inverse[tile + row]);
          });
    }
  }
}

template <typename Scalar>
void forward_range(const Forward& call, int64_t begin, int64_t end, float* scratch_floats) {
  const Attention& a = call.attention;
  ForwardScratch scratch(a, scratch_floats);
  const int64_t blocks = blocks_of(a.queries, kForwardBlock);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t head = unit / blocks % a.heads;
    const int64_t batch = unit / blocks / a.heads;
    const int64_t block = unit % blocks;
    if (unit == begin || block == 0) scratch.head.pack<Scalar>(a, batch, head);
    forward_block<Scalar>(call, scratch, batch, head, block);
  }
}

int64_t forward_scratch(const Forward& call) { return ForwardScratch::size(call.attention); }

void forward(const Forward& call, int64_t begin, int64_t end, float* scratch) {
  switch (call.attention.dtype) {
    case Dtype::kFloat32: return forward_range<float>(call, begin, end, scratch);
    case Dtype::kBFloat16: return forward_range<BFloat16>(call, begin, end, scratch);
    case Dtype::kFloat16: return forward_range<Float16>(call, begin, end, scratch);
  }
}
