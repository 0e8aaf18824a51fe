// Forward of one range of query blocks. Included inside an instruction set's namespace.
//
// A strip of queries at a time: scores by multiply, softmax in one shot, output by multiply.

template <typename Words>
struct ForwardScratch {
  Strip<Words> strip;
  float* value;         // [Lk, D] words along Lk
  float* weight_words;  // [kStrip, Lk]: the strip's exponentials in words along Lk

  static int64_t size(const Logits& l) {
    const int64_t in_words = Words::kPerWord == 1 ? 0 : padded(l.keys) / Words::kPerWord;
    return Strip<Words>::size(l) + values_size<Words>(l) + kStrip * in_words;
  }

  ForwardScratch(const Logits& l, float* scratch) {
    value = strip.place(l, scratch);
    weight_words = Words::kPerWord == 1 ? strip.weights : value + values_size<Words>(l);
  }
};

template <typename Words, typename Scalar>
void forward_block(const Forward& call, const ForwardScratch<Words>& scratch, int64_t batch,
                   int64_t head, int64_t block) {
  const Logits& l = call.logits;
  const Strip<Words>& strip = scratch.strip;
  const int64_t stride = padded(l.keys);
  const Sums sums = call.sums.mass ? block_sums(call.sums, l, batch, head, block) : Sums{};
  const int64_t begin = block * kForwardBlock;
  const int64_t end = smaller(begin + kForwardBlock, l.queries);
  for (int64_t first = begin; first < end; first += kStrip) {
    const int64_t rows = smaller(kStrip, end - first);
    score<Words, Scalar>(strip, l, batch, head, first, rows);
    softmax(strip, l, rows, [&](int64_t at, Floats weight) {
      if constexpr (Words::kPerWord > 1) Words::store_along(scratch.weight_words, at, weight);
    });
    if (sums.mass) add_softmax(strip, sums, rows, stride);
    const int64_t row_number = (batch * l.heads + head) * l.queries + first;
    if (call.token_map)
      copy_column(strip, call.token_map + row_number, call.token[batch], rows, stride);
    if (call.logsumexp) {
      for (int64_t row = 0; row < rows; ++row)
        call.logsumexp[row_number + row] = strip.shift[row] + strip.log_sum[row];
    }
    const int64_t weight_stride = stride / Words::kPerWord;
    for (int64_t tile = 0; tile < rows; tile += kTileRows) {
      multiply<Words, kTileRows, Columns::kHalf>(
          scratch.weight_words + tile * weight_stride, weight_stride, 1, scratch.value,
          padded(l.dim), words<Words>(l.keys), l.dim, [&](int row, int64_t d, auto sum) {
            if (tile + row >= rows) return;
            constexpr int lanes = sizeof(sum) / sizeof(float);
            store<lanes>(row_of<Scalar>(call.output, batch, head, first + tile + row) + d,
                         sum * strip.inverse[tile + row]);
          });
    }
  }
}

template <typename Words, typename Scalar>
void forward_range(const Forward& call, int64_t begin, int64_t end, float* scratch_floats) {
  const Logits& l = call.logits;
  const ForwardScratch<Words> scratch(l, scratch_floats);
  for_each_block(
      l, kForwardBlock, begin, end,
      [&](int64_t batch, int64_t head) {
        scratch.strip.keys.template pack<Scalar>(l, batch, head);
        pack_values<Words, Scalar>(scratch.value, l, call.value, batch, head);
      },
      [&](int64_t batch, int64_t head, int64_t block) {
        forward_block<Words, Scalar>(call, scratch, batch, head, block);
      });
}
