// The one product that both directions are made of. Included inside an instruction set's namespace.
//
//     sum[r][c] = sum over i < depth of a[r * a_row + i * a_step] * b[i * b_row + c]
//
// for kTileRows rows and as many columns as registers hold; `sink(row, column, lanes)` receives
// what one vector of a row adds up to. Rows of `b` are vectors, elements of `a` are broadcast. Sums
// of more than kDepth words are sums of parts, which lose fewer digits.
//
// Elements are words of 32 bits; what a word holds, and what a product of two is, `Words` says.

struct Singles {  // a float
  static constexpr int64_t kPerWord = 1;

  template <typename Lanes>
  static Lanes add_product(Lanes sum, float element, Lanes column) {
    return sum + element * column;
  }
};

template <int number>
struct Constant {
  static constexpr int value = number;
};

template <typename Words, int rows, int vectors, bool half, typename Sink>
inline void multiply_tile(const float* a, int64_t a_row, int64_t a_step, const float* b,
                          int64_t b_row, int64_t depth, const Sink& sink) {
  constexpr int whole = vectors > 0 ? vectors : 1;
  Floats sum[rows][whole], total[rows][whole];
  HalfFloats half_sum[rows], half_total[rows];
  const int64_t parts = (depth + kDepth - 1) / kDepth;
  const int64_t part = (depth + parts - 1) / parts;
  int64_t first = 0;
  do {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < vectors; ++c) sum[r][c] = Floats{};
      half_sum[r] = HalfFloats{};
    }
    const int64_t end = first + part < depth ? first + part : depth;
    for (int64_t i = first; i < end; ++i) {
      Floats column[whole];
      HalfFloats half_column{};
#pragma GCC unroll 8
      for (int c = 0; c < vectors; ++c) column[c] = load(b + i * b_row + c * kLanes);
      if constexpr (half) half_column = load<kHalfLanes>(b + i * b_row + vectors * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const float element = a[r * a_row + i * a_step];
#pragma GCC unroll 8
        for (int c = 0; c < vectors; ++c)
          sum[r][c] = Words::add_product(sum[r][c], element, column[c]);
        if constexpr (half) half_sum[r] = Words::add_product(half_sum[r], element, half_column);
      }
    }
    if (parts > 1) {
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < vectors; ++c)
          total[r][c] = sum[r][c] += first == 0 ? Floats{} : total[r][c];
        half_total[r] = half_sum[r] += first == 0 ? HalfFloats{} : half_total[r];
      }
    }
    first = end;
  } while (first < depth);
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) sink(r, c * kLanes, sum[r][c]);
    if constexpr (half) sink(r, vectors * kLanes, half_sum[r]);
  }
}

// Whether a product's columns are whole vectors, or may end with half of one.
enum class Columns { kWhole, kHalf };

// The panels are about equally wide: a narrow one would leave registers unused and wait for its own
// additions.
template <typename Words, int rows, Columns ending, typename Sink>
inline void multiply(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row,
                     int64_t depth, int64_t columns, const Sink& sink) {
  const int64_t vectors = (columns + kLanes - 1) / kLanes;
  int64_t panels = (vectors + kTileVectors - 1) / kTileVectors;
  for (int64_t done = 0; done < vectors; --panels) {
    const int64_t width = (vectors - done + panels - 1) / panels;
    const int64_t first = done * kLanes;
    done += width;
    const auto shifted = [&](int row, int column, auto value) { sink(row, first + column, value); };
    const auto run = [&](auto count) {
      if constexpr (ending == Columns::kHalf && kHalfLanes < kLanes) {
        if (done * kLanes > columns) {
          multiply_tile<Words, rows, count.value - 1, true>(a, a_row, a_step, b + first, b_row,
                                                            depth, shifted);
          return;
        }
      }
      multiply_tile<Words, rows, count.value, false>(a, a_row, a_step, b + first, b_row, depth,
                                                     shifted);
    };
    static_assert(kTileVectors <= 5);
    switch (width) {
      case 1: run(Constant<1>{}); break;
      case 2: run(Constant<2>{}); break;
      case 3:
        if constexpr (kTileVectors >= 3) run(Constant<3>{});
        break;
      case 4:
        if constexpr (kTileVectors >= 4) run(Constant<4>{});
        break;
      case 5:
        if constexpr (kTileVectors >= 5) run(Constant<5>{});
        break;
    }
  }
}
