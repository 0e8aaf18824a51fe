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

// What both directions keep of the head they are at.
template <typename Words>
struct Head {
  float* key;          // [Lk, D] words along D
  float* key_columns;  // [D, Lk] the same words
  float* value;        // [Lk, D] words along Lk
  float* factor;  // [Lk], of the products: scale, for key 0 times begin_scale; 0 in the padding
  float* bias;    // [Lk], added to that

  static int64_t key_stride(const Attention& a) { return padded(words<Words>(a.dim)); }

  static int64_t size(const Attention& a) {
    return key_stride(a) * (a.keys + padded(a.keys)) + words<Words>(a.keys) * padded(a.dim) +
           2 * padded(a.keys);
  }

  float* place(const Attention& a, float* scratch) {
    key = scratch;
    key_columns = key + a.keys * key_stride(a);
    value = key_columns + key_stride(a) * padded(a.keys);
    factor = value + words<Words>(a.keys) * padded(a.dim);
    bias = factor + padded(a.keys);
    return bias + padded(a.keys);
  }

  template <typename Scalar>
  void pack(const Attention& a, int64_t batch, int64_t head) {
    for (int64_t k = 0; k < a.keys; ++k)
      pack_row<Words>(key + k * key_stride(a), row_of<Scalar>(a.key, batch, head, k), a.dim);
    pack_transposed(key_columns, key, a.keys, words<Words>(a.dim), key_stride(a));
    for (int64_t k = 0; k < a.keys; k += Words::kPerWord) {
      float* const row = value + k / Words::kPerWord * padded(a.dim);
      const Scalar* const from = row_of<Scalar>(a.value, batch, head, k);
      if constexpr (Words::kPerWord == 1) {
        pack_row<Words>(row, from, a.dim);
      } else {
        const bool is_last = k + 1 == a.keys;
        Words::interleave(row, from, is_last ? nullptr : from + a.value.row_stride, a.dim);
      }
    }
    for (int64_t k = 0; k < padded(a.keys); ++k) {
      factor[k] = k < a.keys ? a.scale : 0.0f;
      bias[k] = a.key_bias && k < a.keys ? a.key_bias[batch * a.keys + k] : 0.0f;
    }
    if (a.begin_scale) factor[0] *= a.begin_scale[batch];
  }
};
