// What every attention kernel does alike: a warp's place, what it loads, what becomes of its
// logits.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"
#include "cuda/instructions.h"
#include "cuda/plan.h"

namespace memattn::cuda {

constexpr float kInfinity = __builtin_huge_valf();
constexpr float kLn2 = 0.693147180559945309f;
constexpr float kLog2E = 1.44269504088896341f;
// exp2 of less is 0 in float32, so -p ln p is 0 wherever this cuts, and never 0 * inf.
constexpr float kLeastLogit = -256.0f;

__device__ __forceinline__ int min_of(int a, int b) { return a < b ? a : b; }
// Of a number and nan, the number.
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ float sum_of(float a, float b) { return a + b; }

// Over the four lanes that share a row.
template <float (*kJoin)(float, float)>
__device__ __forceinline__ float over_quad(float value) {
  value = kJoin(value, across(value, 1));
  return kJoin(value, across(value, 2));
}

// Eight numbers of each of the eight lanes that share columns, added up: lane 4 i + pair gets the
// i-th sum. Halves are exchanged, so that it takes 7 exchanges and not 24.
__device__ __forceinline__ float over_rows(const float (&numbers)[8], int lane) {
  float four[4], two[2];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool upper = lane & 16;
    four[i] =
        (upper ? numbers[i + 4] : numbers[i]) + across(upper ? numbers[i] : numbers[i + 4], 16);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bool upper = lane & 8;
    two[i] = (upper ? four[i + 2] : four[i]) + across(upper ? four[i] : four[i + 2], 8);
  }
  const bool upper = lane & 4;
  return (upper ? two[1] : two[0]) + across(upper ? two[0] : two[1], 4);
}

// What a lane knows of its two rows: probabilities are weights times `inverse`. Column sums count
// p = share * weight and -p log2 p = (offset - share * logit) * weight, nothing for no query.
struct RowTotals {
  float inverse[2], share[2], offset[2];
};

// Mass of two columns, and their entropy to base 2: what a lane has of 8 keys.
struct ColumnSums {
  float mass[2], entropy[2];
};

// One warp of a block of kWarps, which has 16 queries of a head at a time. Kernel is what derives
// from it: `load_head` brings keys, values and the first queries, `attend` has a tile of queries,
// and `finish_chunk` stores sums.
template <class Kernel, Dtype kDtype, int kDim, int kWarps>
class Warp {
 public:
  // All chunks of this block, head after head.
  __device__ void run() {
    const int end = first_chunk(block_ + 1);
    for (int at = first_chunk(block_); at < end;) {
      const int head = at / call_.chunks, chunk = at % call_.chunks;
      const int end_chunk = min_of(call_.chunks, chunk + (end - at));
      enter(head);
      end_tile_ = end_chunk * call_.tiles;
      kernel().load_head(chunk * call_.tiles);
      for (int of_head = chunk; of_head < end_chunk; ++of_head) {
        for (int i = 0; i < call_.tiles; ++i) {
          const int tile = of_head * call_.tiles + i;
          if (has_queries(tile)) kernel().attend(tile);
        }
        kernel().finish_chunk(of_head);
      }
      at += end_chunk - chunk;
      wait_for_block();  // the next head's keys go where these are
    }
  }

 protected:
  static constexpr int kStride = row_stride(kDim);
  static constexpr int kDepthSteps = padded(kDim, 16) / 16;
  static constexpr int kPieces = kDim / 8;  // of 16 bytes, in a row
  static constexpr int kOutputTiles = kDim / 8;
  static_assert(kDim % 8 == 0);

  // Which pieces of rows a lane copies: whole rows side by side or, of long ones, 64 bytes of each
  // of eight. All that depends on the lane is one row and one piece.
  static constexpr int kLanesOfRow = kPieces <= 10 ? kPieces : 4;
  static constexpr int kRowsAtOnce = 32 / kLanesOfRow;

  __device__ Warp(const ForwardArguments& call, int block, int thread)
      : call_(call), block_(block), warp_(thread / 32), lane_(thread % 32) {}

  __device__ Kernel& kernel() { return static_cast<Kernel&>(*this); }

  // Of all chunks: a block ends where the next one begins.
  __device__ int first_chunk(int block) const {
    return static_cast<int>(static_cast<int64_t>(block) * call_.all_chunks / call_.blocks);
  }

  __device__ void enter(int head) {
    head_ = head;
    sample_ = head / call_.heads;
    within_ = head % call_.heads;
    queries_from_ = head_of(call_.query);
    // A large begin_scale has to meet the scale before it meets the product.
    begin_factor_ = call_.scale_log2;
    if (call_.begin_scale && lane_ % 4 == 0) begin_factor_ *= call_.begin_scale[sample_];
    if (call_.token) {
      // The nearest, should there be no such token: it cannot be looked at before.
      const int64_t token = call_.token[sample_];
      token_ = token < 0 ? 0 : token < call_.keys ? static_cast<int>(token) : call_.keys - 1;
    }
  }

  // Where this warp's queries of a tile begin.
  __device__ int first_row(int tile) const { return (tile * kWarps + warp_) * kRows; }

  __device__ bool has_queries(int tile) const { return first_row(tile) < call_.queries; }

  // Which query one half of this lane's numbers is of.
  __device__ int query_of(int tile, int half) const {
    return first_row(tile) + lane_ / 4 + 8 * half;
  }

  // Which key one of this lane's four numbers of a tile of 8 keys is of.
  __device__ int key_of(int tile, int number) const {
    return 8 * tile + 2 * (lane_ % 4) + number % 2;
  }

  __device__ const uint16_t* head_of(const Rows& rows) const {
    return static_cast<const uint16_t*>(rows.data) + sample_ * rows.batch + within_ * rows.head;
  }

  __device__ int64_t row_offset(int row) const {
    return static_cast<int64_t>(head_) * call_.queries + row;
  }

  // Where an output row of this head begins.
  __device__ uint16_t* output_row(int row) const {
    const int64_t place = static_cast<int64_t>(sample_) * call_.queries + row;
    return static_cast<uint16_t*>(call_.output) + (place * call_.heads + within_) * kDim;
  }

  // Calls a function for every row and piece of kCount rows that is this lane's.
  template <int kCount, class Function>
  __device__ void for_pieces(Function function) const {
    const int first = lane_ / kLanesOfRow;
    if (32 % kLanesOfRow != 0 && first >= kRowsAtOnce) return;
#pragma unroll
    for (int rows = 0; rows < kCount; rows += kRowsAtOnce) {
      const int row = rows + first;
      if (kCount % kRowsAtOnce != 0 && row >= kCount) break;
#pragma unroll
      for (int pieces = 0; pieces < kPieces; pieces += kLanesOfRow) {
        const int piece = pieces + lane_ % kLanesOfRow;
        if (kPieces % kLanesOfRow == 0 || piece < kPieces) function(row, piece);
      }
    }
  }

  // Some keys or values into shared memory, by the whole block; beyond Lk the last one again.
  __device__ void load_keys(uint16_t* shared, const Rows& rows, int count) const {
    const uint16_t* const from = head_of(rows);
    for (int first = warp_ * kRowsAtOnce; first < count; first += kWarps * kRowsAtOnce)
      for_pieces<kRowsAtOnce>([&](int row, int piece) {
        row += first;
        const int64_t place = min_of(row, call_.keys - 1);
        if (row < count)
          copy_16_bytes(shared + row * kStride + 8 * piece,
                        from + place * rows.position + 8 * piece);
      });
  }

  // A tile of this warp's queries; beyond the last one the last, which then counts once.
  __device__ void load_queries(uint16_t* shared, int tile) const {
    if (tile >= end_tile_ || !has_queries(tile)) return;
    for_pieces<kRows>([&](int row, int piece) {
      const int64_t place = min_of(first_row(tile) + row, call_.queries - 1);
      copy_16_bytes(shared + row * kStride + 8 * piece,
                    queries_from_ + place * call_.query.position + 8 * piece);
    });
  }

  // Zeros that no copy touches: where rows have no depth any more, by the whole block.
  __device__ void clear_beyond_depth(uint16_t* shared, int rows) const {
    if constexpr (kDim % 16 != 0)
      for (int row = warp_ * 32 + lane_; row < rows; row += kWarps * 32)
        *reinterpret_cast<uint4*>(shared + row * kStride + kDim) = uint4{};
  }

  // And where there is no value: that of a key which does not exist meets a weight of 0.
  __device__ void clear_values(uint16_t* values, int padded_keys) const {
    for (int row = call_.keys + warp_; row < padded_keys; row += kWarps)
      for (int piece = lane_; piece < kPieces; piece += 32)
        *reinterpret_cast<uint4*>(values + row * kStride + 8 * piece) = uint4{};
  }

  // key_bias to base 2 less its largest, which softmax does not see and which would cost digits;
  // -inf where there is no key.
  __device__ void load_shifts(int padded_keys) {
    const float* const bias =
        call_.key_bias ? call_.key_bias + static_cast<int64_t>(sample_) * call_.keys : nullptr;
    float top = -kInfinity;
    if (bias)
      for (int key = lane_; key < call_.keys; key += 32) top = larger(top, bias[key]);
    for (int mask = 16; mask > 0; mask /= 2) top = larger(top, across(top, mask));
    top_ = top == kInfinity || top == -kInfinity ? 0.0f : top;
    for (int key = warp_ * 32 + lane_; key < padded_keys; key += kWarps * 32)
      shifts_[key] = key >= call_.keys ? -kInfinity : bias ? (bias[key] - top_) * kLog2E : 0.0f;
  }

  // Fragments of 16 queries, for one step of 16 along D.
  __device__ void load_left(uint32_t (&left)[4], const uint16_t* queries, int step) const {
    load_matrices(left, queries + lane_ % 16 * kStride + lane_ / 16 * 8 + 16 * step);
  }

  // Adds the products of 16 queries and 16 keys along one step of D.
  __device__ void add_products(float (&first)[4], float (&second)[4], const uint32_t (&left)[4],
                               const uint16_t* keys, int step) const {
    uint32_t right[4];
    load_matrices(right,
                  keys + (lane_ % 8 + lane_ / 16 * 8) * kStride + lane_ / 8 % 2 * 8 + 16 * step);
    multiply_add<kDtype>(first, left, right[0], right[1]);
    multiply_add<kDtype>(second, left, right[2], right[3]);
  }

  // Products of 16 queries with 8 keys to logits to base 2: scale, begin_scale and key_bias, -inf
  // where there is no key. What stands there is a key that counts elsewhere, so that its product
  // with an infinite query makes nan of no row that is not nan by that key already.
  __device__ void finish_logits(float (&logits)[4], int tile) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float factor = tile == 0 && i % 2 == 0 ? begin_factor_ : call_.scale_log2;
      logits[i] = logits[i] * factor + shifts_[key_of(tile, i)];
    }
  }

  static __device__ void raise(float (&row_max)[2], const float (&logits)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) row_max[i / 2] = larger(row_max[i / 2], logits[i]);
  }

  // What a row's logits are taken less of. Without keys they would be -inf - -inf = nan.
  __device__ float finite_max(float row_max) const {
    return call_.key_bias && row_max == -kInfinity ? 0.0f : row_max;
  }

  // From whole rows: their largest logit, and the total of their weights. Stores logsumexp.
  __device__ RowTotals finish_rows(int tile, const float (&row_max)[2],
                                   const float (&total)[2]) const {
    RowTotals rows;
    for (int half = 0; half < 2; ++half) {
      const bool is_empty = total[half] == 0.0f;  // not by the maximum, which passes over nan
      const float all = call_.key_bias && is_empty ? 1.0f : total[half];
      const float log_total = log2_of(all);
      const int row = query_of(tile, half);
      const bool exists = row < call_.queries;
      rows.inverse[half] = 1.0f / all;
      rows.share[half] = exists ? rows.inverse[half] : 0.0f;
      rows.offset[half] = log_total * rows.share[half];
      if (call_.logsumexp && lane_ % 4 == 0 && exists) {
        const float value = (row_max[half] + log_total) * kLn2 + top_;
        call_.logsumexp[row_offset(row)] = call_.key_bias && is_empty ? 0.0f : value;
      }
    }
    return rows;
  }

  // What the token of this sample got, if it is among 8 keys.
  __device__ void store_map(int tile, int key_tile, const float (&weights)[4],
                            const RowTotals& rows) const {
    if (token_ / 8 != key_tile) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = query_of(tile, i / 2);
      if (key_of(key_tile, i) == token_ && row < call_.queries)
        call_.token_map[row_offset(row)] = weights[i] * rows.inverse[i / 2];
    }
  }

  // The two rows that a lane has of a column are in one sum.
  __device__ void add_to_sums(ColumnSums& sums, const float (&logits)[4], const float (&weights)[4],
                              const RowTotals& rows) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i / 2;
      const float logit = larger(logits[i], kLeastLogit);
      sums.mass[i % 2] += weights[i] * rows.share[half];
      sums.entropy[i % 2] += weights[i] * (rows.offset[half] - logit * rows.share[half]);
    }
  }

  // What all rows have of 16 keys, one number in each lane.
  __device__ float over_rows_of(const ColumnSums& first, const ColumnSums& second) const {
    const float numbers[8] = {first.mass[0],     first.mass[1],    second.mass[0],
                              second.mass[1],    first.entropy[0], first.entropy[1],
                              second.entropy[0], second.entropy[1]};
    return over_rows(numbers, lane_);
  }

  // This lane's place in this warp's sums of 16 keys, which are what `over_rows_of` gives.
  __device__ float* sum_of_keys(int first_key, int padded_keys) const {
    return sums_at_ + kSumsPerKey * (warp_ * padded_keys + first_key) + lane_;
  }

  // The block's sums of a chunk, over warps in their order.
  __device__ void store_sums(int chunk, int padded_keys) const {
    wait_for_block();
    const int64_t place = (static_cast<int64_t>(head_) * call_.chunks + chunk) * call_.keys;
    for (int key = warp_ * 32 + lane_; key < call_.keys; key += kWarps * 32) {
      const float* of_warp =
          sums_at_ + key / 16 * 16 * kSumsPerKey + key % 16 / 8 * 8 + key % 2 * 4 + key % 8 / 2;
      float mass = 0.0f, entropy = 0.0f;
      for (int warp = 0; warp < kWarps; ++warp, of_warp += kSumsPerKey * padded_keys) {
        mass += of_warp[0];
        entropy += of_warp[16];
      }
      call_.mass[place + key] = mass;
      call_.entropy[place + key] = entropy * kLn2;
    }
    wait_for_block();  // the next chunk's sums go where these are
  }

  // Weights of 16 keys as fragments of 16 bits.
  __device__ void pack(uint32_t (&left)[4], const float (&first)[4],
                       const float (&second)[4]) const {
    left[0] = packed<kDtype>(first[0], first[1]);
    left[1] = packed<kDtype>(first[2], first[3]);
    left[2] = packed<kDtype>(second[0], second[1]);
    left[3] = packed<kDtype>(second[2], second[3]);
  }

  // Adds the weights of 16 keys times some tiles of 8 columns of their values.
  template <int kTiles>
  __device__ void add_values(float (&output)[kTiles][4], int first_tile,
                             const uint32_t (&weights)[4], const uint16_t* values) const {
#pragma unroll
    for (int n = 0; n < kTiles && first_tile + n < kOutputTiles; n += 2) {
      uint32_t right[4];  // rows are padded: an odd tile's neighbour is zeros
      load_transposed(right, values + lane_ % 16 * kStride + lane_ / 16 * 8 + 8 * (first_tile + n));
      multiply_add<kDtype>(output[n], weights, right[0], right[1]);
      if (first_tile + n + 1 < kOutputTiles)
        multiply_add<kDtype>(output[n + 1], weights, right[2], right[3]);
    }
  }

  const ForwardArguments& call_;
  const int block_, warp_, lane_;
  int head_, sample_, within_, end_tile_;
  const uint16_t* queries_from_;
  float begin_factor_, top_;
  int token_ = -1;
  float *shifts_, *sums_at_;  // where the kernel has room for them
};

}  // namespace memattn::cuda
