// Attention over keys that are one tile, with the sums over queries of what each key got.
//
// A block has keys and values of one head in shared memory, once, and walks over some tiles of its
// queries. Each of its warps goes alone: 16 queries' logits, softmax, sums and output stay in its
// registers, while its next 16 queries are on their way. Everything accumulates in float32.
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

// One warp and what it knows. kKeys is Lk rounded up to one of kPaddedKeys.
template <Dtype kDtype, int kDim, int kKeys, bool kStatistics>
class ShortKeys {
 public:
  static __device__ void run(const ForwardArguments& call, char* shared, int block, int thread) {
    ShortKeys(call, shared, block, thread).run();
  }

 private:
  static constexpr int kStride = row_stride(kDim);
  static constexpr int kDepthSteps = padded(kDim, 16) / 16;
  static constexpr int kPieces = 2 * kDepthSteps;  // of 16 bytes, in a row
  static constexpr int kKeyTiles = kKeys / 8;
  static constexpr int kOutputTiles = kDim / 8;
  // What is computed at a time, an even number: all of a deep head's would not fit the registers.
  static constexpr int kOutputGroup = kOutputTiles > 10 ? 8 : padded(kOutputTiles, 2);
  // Nor would logits, weights and sums of many keys.
  static constexpr bool kSumsInShared = kStatistics && sums_in_shared(kKeys);
  static_assert(kKeys % 16 == 0 && kDim % 8 == 0);

  __device__ ShortKeys(const ForwardArguments& call, char* shared, int block, int thread)
      : call_(call),
        warp_(thread / 32),
        lane_(thread % 32),
        chunk_(block % call.chunks),
        head_(block / call.chunks),
        sample_(head_ / call.heads),
        within_(head_ % call.heads) {
    keys_ = reinterpret_cast<uint16_t*>(shared);
    values_ = keys_ + kKeys * kStride;
    shifts_ = reinterpret_cast<float*>(values_ + kKeys * kStride);
    uint16_t* const all_queries = reinterpret_cast<uint16_t*>(shifts_ + kKeys);
    queries_ = all_queries + warp_ * kStages * kRows * kStride;
    shared_sums_ = reinterpret_cast<float4*>(all_queries + kWarps * kStages * kRows * kStride) +
                   warp_ * kKeyTiles * 32;
    if constexpr (kSumsInShared)
      for (int j = 0; j < kKeyTiles; ++j) sums(j) = float4{};
  }

  __device__ void run() {
    load_keys(keys_, call_.key);
    load_keys(values_, call_.value);
    load_queries(0);
    load_shifts();
    wait_for_copies();
    wait_for_block();
    for (int tile = 0; tile < call_.tiles && first_row(tile) < call_.queries; ++tile) {
      load_queries(tile + 1);
      attend(tile);
      wait_for_copies();
      wait_for_warp();  // the next queries are here, and the output is gone
    }
    if constexpr (kStatistics) store_sums();
  }

  // Where this warp's queries of a tile begin.
  __device__ int first_row(int tile) const {
    return ((chunk_ * call_.tiles + tile) * kWarps + warp_) * kRows;
  }

  // Which query one half of this lane's numbers is of.
  __device__ int query_of(int tile, int half) const {
    return first_row(tile) + lane_ / 4 + 8 * half;
  }

  __device__ uint16_t* stage(int tile) const { return queries_ + tile % kStages * kRows * kStride; }

  __device__ const uint16_t* head_of(const Rows& rows) const {
    return static_cast<const uint16_t*>(rows.data) + sample_ * rows.batch + within_ * rows.head;
  }

  // All keys or values into shared memory, by the whole block; zeros beyond Lk and D.
  __device__ void load_keys(uint16_t* shared, const Rows& rows) const {
#pragma unroll 2
    for (int i = warp_ * 32 + lane_; i < kKeys * kPieces; i += kWarps * 32) {
      const int row = i / kPieces, piece = i % kPieces;
      const bool exists = row < call_.keys && piece < kDim / 8;
      const int64_t offset = exists ? row * rows.position + 8 * piece : 0;
      copy_16_bytes(shared + row * kStride + 8 * piece, head_of(rows) + offset, exists);
    }
  }

  // A tile of this warp's queries; beyond the last one the last, which then counts once.
  __device__ void load_queries(int tile) const {
    if (tile >= call_.tiles || first_row(tile) >= call_.queries) return;
#pragma unroll 2
    for (int i = lane_; i < kRows * kPieces; i += 32) {
      const int row = i / kPieces, piece = i % kPieces;
      const int place = min_of(first_row(tile) + row, call_.queries - 1);
      const bool exists = piece < kDim / 8;
      const int64_t offset = exists ? place * call_.query.position + 8 * piece : 0;
      copy_16_bytes(stage(tile) + row * kStride + 8 * piece, head_of(call_.query) + offset, exists);
    }
  }

  // key_bias to base 2 less its largest, which softmax does not see and which would cost digits.
  __device__ void load_shifts() {
    const float* const bias =
        call_.key_bias ? call_.key_bias + static_cast<int64_t>(sample_) * call_.keys : nullptr;
    float top = -kInfinity;
    if (bias)
      for (int key = lane_; key < call_.keys; key += 32) top = larger(top, bias[key]);
    for (int mask = 16; mask > 0; mask /= 2) top = larger(top, across(top, mask));
    top_ = top == kInfinity || top == -kInfinity ? 0.0f : top;
    for (int key = warp_ * 32 + lane_; key < kKeys; key += kWarps * 32)
      shifts_[key] = bias && key < call_.keys ? (bias[key] - top_) * kLog2E : 0.0f;
  }

  __device__ void attend(int tile) {
    float logits[kKeyTiles][4];
    multiply_queries(logits, stage(tile));
    float row_max[2] = {-kInfinity, -kInfinity};
    finish_logits(logits, row_max);
    float weights[kKeyTiles][4], total[2] = {0.0f, 0.0f};
    for (int half = 0; half < 2; ++half) {
      row_max[half] = over_quad<larger>(row_max[half]);
      // A row without keys would give -inf - -inf = nan.
      if (call_.key_bias && row_max[half] == -kInfinity) row_max[half] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        logits[j][i] -= row_max[i / 2];
        weights[j][i] = exp2_of(logits[j][i]);
        total[i / 2] += weights[j][i];
      }

    float inverse[2], log_total[2];
    for (int half = 0; half < 2; ++half) {
      total[half] = over_quad<sum_of>(total[half]);
      const bool is_empty = total[half] == 0.0f;  // not by the maximum, which passes over nan
      if (call_.key_bias && is_empty) total[half] = 1.0f;
      inverse[half] = 1.0f / total[half];
      log_total[half] = log2_of(total[half]);
      const int row = query_of(tile, half);
      if (call_.logsumexp && lane_ % 4 == 0 && row < call_.queries) {
        const float value = (row_max[half] + log_total[half]) * kLn2 + top_;
        call_.logsumexp[row_offset(row)] = call_.key_bias && is_empty ? 0.0f : value;
      }
    }

    if (call_.token) store_map(tile, weights, inverse);
    if constexpr (kStatistics) add_to_sums(tile, logits, weights, inverse, log_total);
    uint32_t left[kKeys / 16][4];  // the weights in 16 bits
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        left[j / 2][j % 2 * 2 + half] =
            packed<kDtype>(weights[j][2 * half], weights[j][2 * half + 1]);
    wait_for_warp();  // where the queries are, the output will be
#pragma unroll
    for (int first = 0; first < kOutputTiles; first += kOutputGroup)
      multiply_values(tile, first, left, inverse);
    store_output(tile);
  }

  // Products of 16 queries and all keys.
  __device__ void multiply_queries(float (&logits)[kKeyTiles][4], const uint16_t* queries) const {
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) logits[j][i] = 0.0f;
    const uint16_t* const query_row = queries + lane_ % 16 * kStride + lane_ / 16 * 8;
    const uint16_t* const key_row =
        keys_ + (lane_ % 8 + lane_ / 16 * 8) * kStride + lane_ / 8 % 2 * 8;
#pragma unroll
    for (int step = 0; step < kDepthSteps; ++step) {
      uint32_t left[4];
      load_matrices(left, query_row + 16 * step);
#pragma unroll
      for (int j = 0; j < kKeyTiles; j += 2) {
        uint32_t right[4];
        load_matrices(right, key_row + j * 8 * kStride + 16 * step);
        multiply_add<kDtype>(logits[j], left, right[0], right[1]);
        multiply_add<kDtype>(logits[j + 1], left, right[2], right[3]);
      }
    }
  }

  // Scale, begin_scale, key_bias; -inf where there is no key; and the rows' largest.
  __device__ void finish_logits(float (&logits)[kKeyTiles][4], float (&row_max)[2]) const {
    // A large begin_scale has to meet the scale before it meets the product.
    float begin_factor = call_.scale_log2;
    if (call_.begin_scale && lane_ % 4 == 0) begin_factor *= call_.begin_scale[sample_];
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = 8 * j + 2 * (lane_ % 4) + i % 2;
        const float factor = j == 0 && i % 2 == 0 ? begin_factor : call_.scale_log2;
        float logit = logits[j][i] * factor + shifts_[key];
        // Not by way of the shift: an infinite query's product with no key is nan.
        if (8 * j + 8 > call_.keys && key >= call_.keys) logit = -kInfinity;
        logits[j][i] = logit;
        row_max[i / 2] = larger(row_max[i / 2], logit);
      }
    }
  }

  __device__ void store_map(int tile, const float (&weights)[kKeyTiles][4],
                            const float (&inverse)[2]) const {
    // The nearest, should there be no such token: it cannot be looked at before.
    int64_t token = call_.token[sample_];
    token = token < 0 ? 0 : token < call_.keys ? token : call_.keys - 1;
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = query_of(tile, i / 2);
        if (8 * j + 2 * (lane_ % 4) + i % 2 == token && row < call_.queries)
          call_.token_map[row_offset(row)] = weights[j][i] * inverse[i / 2];
      }
  }

  // p and -p log2 p of this warp's rows; the two rows that a lane has of a column are in one sum.
  __device__ void add_to_sums(int tile, const float (&logits)[kKeyTiles][4],
                              const float (&weights)[kKeyTiles][4], const float (&inverse)[2],
                              const float (&log_total)[2]) {
    float share[2], offset[2];
    for (int half = 0; half < 2; ++half) {
      const bool exists = query_of(tile, half) < call_.queries;
      share[half] = exists ? inverse[half] : 0.0f;
      offset[half] = log_total[half] * share[half];
    }
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j) {
      float4 sum = sums(j);
      float* const sums[4] = {&sum.x, &sum.y, &sum.z, &sum.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2;
        const float logit = logits[j][i] < kLeastLogit ? kLeastLogit : logits[j][i];
        *sums[i % 2] += weights[j][i] * share[half];
        *sums[i % 2 + 2] += weights[j][i] * (offset[half] - logit * share[half]);
      }
      this->sums(j) = sum;
    }
  }

  // Mass of two columns, and their entropy: what this lane has of a tile of keys.
  __device__ float4& sums(int j) {
    if constexpr (kSumsInShared)
      return shared_sums_[32 * j + lane_];
    else
      return sums_[j];
  }

  // Weights times some tiles of the values, to where the queries were.
  __device__ void multiply_values(int tile, int first, const uint32_t (&left)[kKeys / 16][4],
                                  const float (&inverse)[2]) const {
    float output[kOutputGroup][4];
#pragma unroll
    for (int n = 0; n < kOutputGroup; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) output[n][i] = 0.0f;
    const uint16_t* const value_row = values_ + lane_ % 16 * kStride + lane_ / 16 * 8 + 8 * first;
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step)
#pragma unroll
      for (int n = 0; n < kOutputGroup && first + n < kOutputTiles; n += 2) {
        uint32_t right[4];  // rows are padded: an odd tile's neighbour is zeros
        load_transposed(right, value_row + step * 16 * kStride + 8 * n);
        multiply_add<kDtype>(output[n], left[step], right[0], right[1]);
        if (first + n + 1 < kOutputTiles)
          multiply_add<kDtype>(output[n + 1], left[step], right[2], right[3]);
      }
#pragma unroll
    for (int n = 0; n < kOutputGroup && first + n < kOutputTiles; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint16_t* const row = stage(tile) + (lane_ / 4 + 8 * half) * kStride;
        *reinterpret_cast<uint32_t*>(row + 8 * (first + n) + 2 * (lane_ % 4)) = packed<kDtype>(
            output[n][2 * half] * inverse[half], output[n][2 * half + 1] * inverse[half]);
      }
  }

  // Whole rows of a head's output, 16 bytes at a time.
  __device__ void store_output(int tile) const {
    wait_for_warp();
    uint16_t* const head = static_cast<uint16_t*>(call_.output) +
                           static_cast<int64_t>(sample_) * call_.queries * call_.heads * kDim +
                           within_ * kDim;
    for (int i = lane_; i < kRows * kOutputTiles; i += 32) {
      const int row = i / kOutputTiles, piece = i % kOutputTiles, place = first_row(tile) + row;
      if (place < call_.queries)
        *reinterpret_cast<uint4*>(head + static_cast<int64_t>(place) * call_.heads * kDim +
                                  8 * piece) =
            *reinterpret_cast<const uint4*>(stage(tile) + row * kStride + 8 * piece);
    }
  }

  // The block's sums: over the eight lanes of a column, then over warps in their order.
  __device__ void store_sums() {
    float* const own = reinterpret_cast<float*>(queries_);
    constexpr int kOfWarp = kStages * kRows * kStride / 2;  // floats that a warp has there
    static_assert(2 * kKeys <= kOfWarp);
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j) {
      float4 sum = sums(j);
      for (int mask = 4; mask < 32; mask *= 2) {
        sum.x += across(sum.x, mask);
        sum.y += across(sum.y, mask);
        sum.z += across(sum.z, mask);
        sum.w += across(sum.w, mask);
      }
      if (lane_ < 4) {
        own[8 * j + 2 * lane_] = sum.x;
        own[8 * j + 2 * lane_ + 1] = sum.y;
        own[kKeys + 8 * j + 2 * lane_] = sum.z;
        own[kKeys + 8 * j + 2 * lane_ + 1] = sum.w;
      }
    }
    wait_for_block();
    const float* const all = own - warp_ * kOfWarp;
    const int64_t place = (static_cast<int64_t>(head_) * call_.chunks + chunk_) * call_.keys;
    for (int key = warp_ * 32 + lane_; key < call_.keys; key += kWarps * 32) {
      float mass = 0.0f, entropy = 0.0f;
      for (int warp = 0; warp < kWarps; ++warp) {
        mass += all[warp * kOfWarp + key];
        entropy += all[warp * kOfWarp + kKeys + key];
      }
      call_.mass[place + key] = mass;
      call_.entropy[place + key] = entropy * kLn2;
    }
  }

  __device__ int64_t row_offset(int row) const {
    return static_cast<int64_t>(head_) * call_.queries + row;
  }

  static __device__ __forceinline__ int min_of(int a, int b) { return a < b ? a : b; }
  static __device__ __forceinline__ float larger(float a, float b) { return a > b ? a : b; }
  static __device__ __forceinline__ float sum_of(float a, float b) { return a + b; }

  // Over the four lanes that share a row.
  template <float (*kJoin)(float, float)>
  static __device__ __forceinline__ float over_quad(float value) {
    value = kJoin(value, across(value, 1));
    return kJoin(value, across(value, 2));
  }

  const ForwardArguments& call_;
  const int warp_, lane_, chunk_, head_, sample_, within_;
  float top_;
  uint16_t *keys_, *values_, *queries_;
  float* shifts_;
  float4* shared_sums_;
  float4 sums_[kSumsInShared ? 1 : kKeyTiles] = {};
};

}  // namespace memattn::cuda
