// One head's keys and values, packed once for all its queries. Included inside an instruction set's
// namespace.
//
// In the words that products take: the keys as [D, Lk] with Lk padded to whole vectors, so that a
// row of scores is a row of vectors, and the values as [Lk, D].

template <typename Scalar>
inline const Scalar* row_of(const Rows& rows, int64_t batch, int64_t head, int64_t row) {
  return static_cast<const Scalar*>(rows.data) + batch * rows.batch_stride +
         head * rows.head_stride + row * rows.row_stride;
}

template <typename Scalar>
inline Scalar* row_of(const MutableRows& rows, int64_t batch, int64_t head, int64_t row) {
  return static_cast<Scalar*>(rows.data) + batch * rows.batch_stride + head * rows.head_stride +
         row * rows.row_stride;
}

inline int64_t padded(int64_t length) { return (length + kLanes - 1) / kLanes * kLanes; }

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <typename Words>
inline int64_t words(int64_t length) {
  return (length + Words::kPerWord - 1) / Words::kPerWord;
}

// One row of `dim` elements as words along the row.
template <typename Words, typename Scalar>
inline void pack_row(float* to, const Scalar* from, int64_t dim) {
  if constexpr (Words::kPerWord == 1) {
    for (int64_t d = 0; d < dim; d += kHalfLanes)
      store<kHalfLanes>(to + d, load<kHalfLanes>(from + d));
  } else {
    __builtin_memcpy(to, from, dim * sizeof(Scalar));
  }
}

// [rows, columns] with `stride` between rows -> [columns, padded(rows)], zeros in the padding.
// Columns beyond the last are read and written up to the next whole vector.
inline void pack_transposed(float* to, const float* from, int64_t rows, int64_t columns,
                            int64_t stride) {
  const int64_t to_stride = padded(rows);
  for (int64_t row = 0; row < rows; row += kLanes) {
    for (int64_t column = 0; column < columns; column += kLanes) {
      Floats square[kLanes];
      for (int64_t lane = 0; lane < kLanes; ++lane)
        square[lane] = row + lane < rows ? load(from + (row + lane) * stride + column) : Floats{};
      transpose(square);
      for (int64_t lane = 0; lane < kLanes; ++lane)
        store(to + (column + lane) * to_stride + row, square[lane]);
    }
  }
}

// Minus infinity where kTileRows rows of logits have no key. Zeros among the packed keys would not
// do: their products with an infinite query are nan.
inline void remove_padding(float* scores, int64_t keys) {
  const int64_t stride = padded(keys);
  if (keys == stride) return;
  const auto is_padding = numbers(AllLanes{}) >= static_cast<int32_t>(keys % kLanes);
  for (int row = 0; row < kTileRows; ++row) {
    float* const last = scores + (row + 1) * stride - kLanes;
    store(last, is_padding ? broadcast(-__builtin_inff()) : load(last));
  }
}

// One head's keys, and what their logits take beside the product.
template <typename Words>
struct Keys {
  float* rows;     // [Lk, D] words along D
  float* columns;  // [D, Lk] the same words
  float* factor;   // [Lk], of the products: scale, for key 0 times begin_scale; 0 in the padding
  float* bias;     // [Lk], added to that

  static int64_t stride(const Logits& l) { return padded(words<Words>(l.dim)); }

  static int64_t size(const Logits& l) {
    return stride(l) * (l.keys + padded(l.keys)) + 2 * padded(l.keys);
  }

  float* place(const Logits& l, float* scratch) {
    rows = scratch;
    columns = rows + l.keys * stride(l);
    factor = columns + stride(l) * padded(l.keys);
    bias = factor + padded(l.keys);
    return bias + padded(l.keys);
  }

  template <typename Scalar>
  void pack(const Logits& l, int64_t batch, int64_t head) const {
    for (int64_t k = 0; k < l.keys; ++k)
      pack_row<Words>(rows + k * stride(l), row_of<Scalar>(l.key, batch, head, k), l.dim);
    pack_transposed(columns, rows, l.keys, words<Words>(l.dim), stride(l));
    for (int64_t k = 0; k < padded(l.keys); ++k) {
      factor[k] = k < l.keys ? l.scale : 0.0f;
      bias[k] = l.key_bias && k < l.keys ? l.key_bias[batch * l.keys + k] : 0.0f;
    }
    if (l.begin_scale) factor[0] *= l.begin_scale[batch];
  }
};

template <typename Words>
inline int64_t values_size(const Logits& l) {
  return words<Words>(l.keys) * padded(l.dim);
}

// One head's values as [Lk, D] words along Lk.
template <typename Words, typename Scalar>
inline void pack_values(float* to, const Logits& l, const Rows& value, int64_t batch,
                        int64_t head) {
  for (int64_t k = 0; k < l.keys; k += Words::kPerWord) {
    float* const row = to + k / Words::kPerWord * padded(l.dim);
    const Scalar* const from = row_of<Scalar>(value, batch, head, k);
    if constexpr (Words::kPerWord == 1) {
      pack_row<Words>(row, from, l.dim);
    } else {
      const bool is_last = k + 1 == l.keys;
      Words::interleave(row, from, is_last ? nullptr : from + value.row_stride, l.dim);
    }
  }
}

// Run `block(batch, head, number)` for units `begin` to `end`, which are blocks of `size` queries,
// after `pack(batch, head)` whenever a head is met first.
template <typename Pack, typename Block>
inline void for_each_block(const Logits& l, int64_t size, int64_t begin, int64_t end,
                           const Pack& pack, const Block& block) {
  const int64_t blocks = blocks_of(l.queries, size);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t number = unit % blocks;
    const int64_t head = unit / blocks % l.heads;
    const int64_t batch = unit / blocks / l.heads;
    if (unit == begin || number == 0) pack(batch, head);
    block(batch, head, number);
  }
}
