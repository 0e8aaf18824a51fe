// Attention over keys whose logits fit the registers, with the sums over queries of what each got.
//
// A block has keys and values of one head in shared memory and walks over some chunks of its
// queries, then over some of the next head's. Each of its warps goes alone: 16 queries' logits,
// softmax, sums and output stay in its registers, while its next queries are on their way.
// Everything accumulates in float32.
#pragma once

#include <cstdint>

#include "cuda/warp.h"

namespace memattn::cuda {

// kKeys is Lk rounded up to one of kShortKeys.
template <Dtype kDtype, int kDim, int kKeys, bool kStatistics>
class ShortKeys : Warp<ShortKeys<kDtype, kDim, kKeys, kStatistics>, kDtype, kDim, kShortWarps> {
 public:
  static __device__ void run(const ForwardArguments& call, char* shared, int block, int thread) {
    ShortKeys(call, shared, block, thread).Base::run();
  }

 private:
  using Base = Warp<ShortKeys, kDtype, kDim, kShortWarps>;
  friend Base;
  using Base::call_, Base::lane_, Base::shifts_, Base::sums_at_, Base::token_, Base::warp_;
  using Base::kDepthSteps, Base::kOutputTiles, Base::kStride;
  static constexpr int kKeyTiles = kKeys / 8;
  // What is computed at a time, an even number: all of a deep head's would not fit the registers.
  static constexpr int kOutputGroup = kOutputTiles > 10 ? 8 : padded(kOutputTiles, 2);
  static constexpr bool kSumsInRegisters = sums_in_registers(kKeys);
  static constexpr int kStages = stages(kDim, true), kAhead = kStages - 1;
  static constexpr int kOfStage = kRows * kStride;
  static_assert(kKeys % 16 == 0);

  __device__ ShortKeys(const ForwardArguments& call, char* shared, int block, int thread)
      : Base(call, block, thread) {
    keys_ = reinterpret_cast<uint16_t*>(shared);
    values_ = keys_ + kKeys * kStride;
    shifts_ = reinterpret_cast<float*>(values_ + kKeys * kStride);
    all_queries_ = reinterpret_cast<uint16_t*>(shifts_ + kKeys);
    sums_at_ = reinterpret_cast<float*>(all_queries_ + kShortWarps * kStages * kOfStage);
    Base::clear_beyond_depth(keys_, 2 * kKeys);
    Base::clear_beyond_depth(all_queries_, kShortWarps * kStages * kRows);
    Base::clear_values(values_, kKeys);
    if constexpr (kStatistics) clear_sums();
  }

  __device__ void load_head(int first_tile) {
    Base::load_keys(keys_, call_.key, kKeys);
    Base::load_keys(values_, call_.value, call_.keys);
    for (int i = 0; i < kAhead; ++i) load_queries(first_tile + i);
    Base::load_shifts(kKeys);
    wait_for_copies<kAhead - 1>();
    wait_for_block();
  }

  __device__ void load_queries(int tile) const {
    Base::load_queries(stage(tile), tile);
    end_group_of_copies();
  }

  __device__ uint16_t* stage(int tile) const {
    return all_queries_ + (warp_ * kStages + tile % kStages) * kOfStage;
  }

  __device__ float* shared_sum(int key_tile) const {
    return Base::sum_of_keys(8 * key_tile, kKeys);
  }

  __device__ void clear_sums() {
    if constexpr (kSumsInRegisters) {
#pragma unroll
      for (ColumnSums& sums : sums_) sums = {};
    } else {
      for (int j = 0; j < kKeyTiles; j += 2) *shared_sum(j) = 0.0f;
    }
  }

  __device__ void attend(int tile) {
    load_queries(tile + kAhead);
    float logits[kKeyTiles][4];
    multiply_queries(logits, stage(tile));
    float row_max[2] = {-kInfinity, -kInfinity}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j) {
      Base::finish_logits(logits[j], j);
      Base::raise(row_max, logits[j]);
    }
    for (float& largest : row_max) largest = Base::finite_max(over_quad<larger>(largest));
    float weights[kKeyTiles][4];
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        logits[j][i] -= row_max[i / 2];
        weights[j][i] = exp2_of(logits[j][i]);
        total[i / 2] += weights[j][i];
      }
    for (float& each : total) each = over_quad<sum_of>(each);
    const RowTotals rows = Base::finish_rows(tile, row_max, total);

    if (token_ >= 0)
#pragma unroll
      for (int j = 0; j < kKeyTiles; ++j) Base::store_map(tile, j, weights[j], rows);
    if constexpr (kStatistics) add_to_sums(logits, weights, rows);
    uint32_t left[kKeys / 16][4];
#pragma unroll
    for (int j = 0; j < kKeyTiles; j += 2) Base::pack(left[j / 2], weights[j], weights[j + 1]);
    wait_for_warp();  // where the queries are, the output will be
#pragma unroll
    for (int first = 0; first < kOutputTiles; first += kOutputGroup)
      multiply_values(tile, first, left, rows);
    store_output(tile);
    wait_for_copies<kAhead - 1>();
    wait_for_warp();  // the next queries are here, and the output is gone
  }

  // Products of 16 queries and all keys.
  __device__ void multiply_queries(float (&logits)[kKeyTiles][4], const uint16_t* queries) const {
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) logits[j][i] = 0.0f;
#pragma unroll
    for (int step = 0; step < kDepthSteps; ++step) {
      uint32_t left[4];
      Base::load_left(left, queries, step);
#pragma unroll
      for (int j = 0; j < kKeyTiles; j += 2)
        Base::add_products(logits[j], logits[j + 1], left, keys_ + j * 8 * kStride, step);
    }
  }

  __device__ void add_to_sums(const float (&logits)[kKeyTiles][4],
                              const float (&weights)[kKeyTiles][4], const RowTotals& rows) {
    if constexpr (kSumsInRegisters) {
#pragma unroll
      for (int j = 0; j < kKeyTiles; ++j) Base::add_to_sums(sums_[j], logits[j], weights[j], rows);
    } else {
#pragma unroll
      for (int j = 0; j < kKeyTiles; j += 2) {
        ColumnSums sums[2] = {};
        for (int i = 0; i < 2; ++i) Base::add_to_sums(sums[i], logits[j + i], weights[j + i], rows);
        *shared_sum(j) += Base::over_rows_of(sums[0], sums[1]);
      }
    }
  }

  // Weights times some tiles of the values, to where the queries were.
  __device__ void multiply_values(int tile, int first, const uint32_t (&left)[kKeys / 16][4],
                                  const RowTotals& rows) const {
    float output[kOutputGroup][4] = {};
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step)
      Base::add_values(output, first, left[step], values_ + step * 16 * kStride);
#pragma unroll
    for (int n = 0; n < kOutputGroup && first + n < kOutputTiles; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint16_t* const row = stage(tile) + (lane_ / 4 + 8 * half) * kStride;
        *reinterpret_cast<uint32_t*>(row + 8 * (first + n) + 2 * (lane_ % 4)) = packed<kDtype>(
            output[n][2 * half] * rows.inverse[half], output[n][2 * half + 1] * rows.inverse[half]);
      }
  }

  // Whole rows of a head's output, 16 bytes at a time.
  __device__ void store_output(int tile) const {
    wait_for_warp();
    const uint16_t* const from = stage(tile);
    const int first = Base::first_row(tile);
    uint16_t* const to = Base::output_row(first);
    Base::template for_pieces<kRows>([&](int row, int piece) {
      if (first + row < call_.queries)
        *reinterpret_cast<uint4*>(to + static_cast<int64_t>(row) * call_.heads * kDim + 8 * piece) =
            *reinterpret_cast<const uint4*>(from + row * kStride + 8 * piece);
    });
  }

  __device__ void finish_chunk(int chunk) {
    if constexpr (kStatistics) {
      if constexpr (kSumsInRegisters)
#pragma unroll
        for (int j = 0; j < kKeyTiles; j += 2)
          *shared_sum(j) = Base::over_rows_of(sums_[j], sums_[j + 1]);
      Base::store_sums(chunk, kKeys);
      clear_sums();
    }
  }

  uint16_t *keys_, *values_, *all_queries_;
  ColumnSums sums_[kSumsInRegisters ? kKeyTiles : 1];
};

}  // namespace memattn::cuda
