// Attention over keys that fit shared memory but whose logits do not fit the registers, with the
// sums over queries of what each got.
//
// As with short keys, a block has keys and values of one head in shared memory, and each of its
// warps goes alone. It looks at its 16 queries' logits twice, 16 keys at a time: first for the
// rows' totals, without which no probability can be added to the sums; then for sums and output.
#pragma once

#include <cstdint>

#include "cuda/warp.h"

namespace memattn::cuda {

template <Dtype kDtype, int kDim, bool kStatistics>
class LongKeys : Warp<LongKeys<kDtype, kDim, kStatistics>, kDtype, kDim, kLongWarps> {
 public:
  static __device__ void run(const ForwardArguments& call, char* shared, int block, int thread) {
    LongKeys(call, shared, block, thread).Base::run();
  }

 private:
  using Base = Warp<LongKeys, kDtype, kDim, kLongWarps>;
  friend Base;
  using Base::call_, Base::lane_, Base::shifts_, Base::sums_at_, Base::token_, Base::warp_;
  using Base::kDepthSteps, Base::kOutputTiles, Base::kStride;
  static constexpr int kOfTile = kRows * kStride;
  static constexpr int kEvenTiles = padded(kOutputTiles, 2);

  __device__ LongKeys(const ForwardArguments& call, char* shared, int block, int thread)
      : Base(call, block, thread) {
    keys_ = reinterpret_cast<uint16_t*>(shared);
    values_ = keys_ + call_.padded_keys * kStride;
    shifts_ = reinterpret_cast<float*>(values_ + call_.padded_keys * kStride);
    uint16_t* const all_queries = reinterpret_cast<uint16_t*>(shifts_ + call_.padded_keys);
    queries_ = all_queries + warp_ * kOfTile;
    sums_at_ = reinterpret_cast<float*>(all_queries + kLongWarps * kOfTile);
    Base::clear_beyond_depth(keys_, 2 * call_.padded_keys);
    Base::clear_beyond_depth(all_queries, kLongWarps * kRows);
    Base::clear_values(values_, call_.padded_keys);
    if constexpr (kStatistics) clear_sums();
  }

  __device__ void load_head(int first_tile) {
    Base::load_keys(keys_, call_.key, call_.padded_keys);
    Base::load_keys(values_, call_.value, call_.keys);
    Base::load_queries(queries_, first_tile);
    end_group_of_copies();
    Base::load_shifts(call_.padded_keys);
    wait_for_copies<0>();
    wait_for_block();
  }

  __device__ float* sum(int first_key) const {
    return Base::sum_of_keys(first_key, call_.padded_keys);
  }

  __device__ void clear_sums() {
    for (int key = 0; key < call_.padded_keys; key += kKeyStep) *sum(key) = 0.0f;
  }

  __device__ void attend(int tile) {
    uint32_t queries[kDepthSteps][4];
#pragma unroll
    for (int step = 0; step < kDepthSteps; ++step) Base::load_left(queries[step], queries_, step);
    wait_for_warp();  // the queries are in registers: the next may come
    Base::load_queries(queries_, tile + 1);
    end_group_of_copies();
    attend(tile, queries);
    wait_for_copies<0>();
    wait_for_warp();
  }

  __device__ void finish_chunk(int chunk) {
    if constexpr (kStatistics) {
      Base::store_sums(chunk, call_.padded_keys);
      clear_sums();
    }
  }

  __device__ void attend(int tile, const uint32_t (&queries)[kDepthSteps][4]) {
    float row_max[2], total[2];
    look_for_totals(row_max, total, queries);
    const RowTotals rows = Base::finish_rows(tile, row_max, total);
    float output[kEvenTiles][4] = {};
    for (int key = 0; key < call_.padded_keys; key += kKeyStep) {
      float logits[2][4], weights[2][4];
      compute_logits(logits, queries, key);
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          logits[j][i] -= row_max[i / 2];
          weights[j][i] = exp2_of(logits[j][i]);
        }
      if (token_ >= 0)
        for (int j = 0; j < 2; ++j) Base::store_map(tile, key / 8 + j, weights[j], rows);
      if constexpr (kStatistics) {
        ColumnSums sums[2] = {};
        for (int j = 0; j < 2; ++j) Base::add_to_sums(sums[j], logits[j], weights[j], rows);
        *sum(key) += Base::over_rows_of(sums[0], sums[1]);
      }
      uint32_t left[4];
      Base::pack(left, weights[0], weights[1]);
      Base::add_values(output, 0, left, values_ + key * kStride);
    }
    store_output(tile, output, rows);
  }

  // Each row's largest logit, and the sum of the exponentials of all less it. A lane keeps those of
  // its own columns until the end.
  __device__ void look_for_totals(float (&row_max)[2], float (&total)[2],
                                  const uint32_t (&queries)[kDepthSteps][4]) const {
    float largest[2] = {-kInfinity, -kInfinity};
    total[0] = total[1] = 0.0f;
    for (int key = 0; key < call_.padded_keys; key += kKeyStep) {
      float logits[2][4];
      const float before[2] = {largest[0], largest[1]};
      compute_logits(logits, queries, key);
      for (int j = 0; j < 2; ++j) Base::raise(largest, logits[j]);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // -inf less -inf would be nan: there may be no key among this lane's yet.
        const float base = largest[half] == -kInfinity ? 0.0f : largest[half];
        total[half] *= exp2_of(before[half] - base);
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int i = 0; i < 2; ++i) total[half] += exp2_of(logits[j][2 * half + i] - base);
      }
    }
    for (int half = 0; half < 2; ++half) {
      row_max[half] = Base::finite_max(over_quad<larger>(largest[half]));
      total[half] *= exp2_of(largest[half] - row_max[half]);
      total[half] = over_quad<sum_of>(total[half]);
    }
  }

  // Logits of 16 queries and 16 keys.
  __device__ void compute_logits(float (&logits)[2][4], const uint32_t (&queries)[kDepthSteps][4],
                                 int first_key) const {
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) logits[j][i] = 0.0f;
#pragma unroll
    for (int step = 0; step < kDepthSteps; ++step)
      Base::add_products(logits[0], logits[1], queries[step], keys_ + first_key * kStride, step);
    for (int j = 0; j < 2; ++j) Base::finish_logits(logits[j], first_key / 8 + j);
  }

  // Straight from registers, four lanes 16 bytes of a row: there is little of it to so many keys.
  __device__ void store_output(int tile, const float (&output)[kEvenTiles][4],
                               const RowTotals& rows) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Base::query_of(tile, half);
      if (row >= call_.queries) continue;
      uint16_t* const to = Base::output_row(row) + 2 * (lane_ % 4);
#pragma unroll
      for (int n = 0; n < kOutputTiles; ++n)
        *reinterpret_cast<uint32_t*>(to + 8 * n) = packed<kDtype>(
            output[n][2 * half] * rows.inverse[half], output[n][2 * half + 1] * rows.inverse[half]);
    }
  }

  uint16_t *keys_, *values_, *queries_;
};

}  // namespace memattn::cuda
