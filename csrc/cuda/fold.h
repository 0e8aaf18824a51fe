// The sums of several chunks made one, always in the same order.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"

namespace memattn::cuda {

constexpr int kFoldThreads = 128;

// All keys of one head, of mass or of entropy. What a sum loses is added to the next (Kahan).
inline __device__ void fold_head(const FoldArguments& call, int head, bool is_entropy, int thread) {
  const int64_t place = static_cast<int64_t>(head) * call.keys;
  const float* const parts = (is_entropy ? call.entropy : call.mass) + place * call.chunks;
  float* const folded = (is_entropy ? call.folded_entropy : call.folded_mass) + place;
  for (int key = thread; key < call.keys; key += kFoldThreads) {
    float total = 0.0f, lost = 0.0f;
#pragma unroll 8  // loads that wait for each other would be all that it does
    for (int chunk = 0; chunk < call.chunks; ++chunk) {
      const float term = parts[static_cast<int64_t>(chunk) * call.keys + key] - lost;
      const float sum = total + term;
      lost = (sum - total) - term;
      total = sum;
    }
    folded[key] = total;
  }
}

}  // namespace memattn::cuda
