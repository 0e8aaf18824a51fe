// One head's keys and values, packed once for all its queries. Included inside an instruction set's
// namespace.
//
// All in floats: keys and values as they come, [Lk, D], and the keys again as [D, Lk] with Lk
// padded to whole vectors, so that a row of scores is a row of vectors.

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

inline int64_t blocks_of(int64_t queries, int64_t block) { return (queries + block - 1) / block; }

// One row of `dim` elements as floats, times a factor.
template <typename Scalar>
inline void pack_row(float* to, const Scalar* from, int64_t dim, float factor) {
  for (int64_t d = 0; d < dim; d += kHalfLanes)
    store<kHalfLanes>(to + d, load<kHalfLanes>(from + d) * factor);
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

// What both directions keep of the head they are at.
struct Head {
  float* key;          // [Lk, padded D], key 0 times begin_scale
  float* key_columns;  // [padded D, padded Lk]
  float* value;        // [Lk, padded D]
  float* bias;         // [padded Lk], minus infinity in the padding

  static int64_t size(const Attention& a) {
    return 2 * a.keys * padded(a.dim) + padded(a.dim) * padded(a.keys) + padded(a.keys);
  }

  float* place(const Attention& a, float* scratch) {
    key = scratch;
    value = key + a.keys * padded(a.dim);
    key_columns = value + a.keys * padded(a.dim);
    bias = key_columns + padded(a.dim) * padded(a.keys);
    return bias + padded(a.keys);
  }

  template <typename Scalar>
  void pack(const Attention& a, int64_t batch, int64_t head) {
    const int64_t stride = padded(a.dim);
    for (int64_t k = 0; k < a.keys; ++k) {
      const bool begins = k == 0 && a.begin_scale;
      pack_row(key + k * stride, row_of<Scalar>(a.key, batch, head, k), a.dim,
               begins ? a.begin_scale[batch] : 1.0f);
      pack_row(value + k * stride, row_of<Scalar>(a.value, batch, head, k), a.dim, 1.0f);
    }
    pack_transposed(key_columns, key, a.keys, a.dim, stride);
    for (int64_t k = 0; k < a.keys; ++k)
      bias[k] = a.key_bias ? a.key_bias[batch * a.keys + k] : 0.0f;
    for (int64_t k = a.keys; k < padded(a.keys); ++k) bias[k] = -__builtin_inff();
  }
};
