// The sums of several blocks made one, always in the same order.
#pragma once

#include <cstdint>

#include "cuda/arguments.h"

namespace memattn::cuda {

// One key of one head, of mass or of entropy. What a sum loses is added to the next (Kahan).
inline __device__ void fold_key(const FoldArguments& call, int64_t index) {
  if (index >= call.heads * call.keys) return;
  const int64_t head = index / call.keys, key = index % call.keys;
  for (int which = 0; which < 2; ++which) {
    const float* part = (which ? call.entropy : call.mass) + head * call.chunks * call.keys + key;
    float total = 0.0f, lost = 0.0f;
    for (int chunk = 0; chunk < call.chunks; ++chunk, part += call.keys) {
      const float term = *part - lost, sum = total + term;
      lost = (sum - total) - term;
      total = sum;
    }
    (which ? call.folded_entropy : call.folded_mass)[index] = total;
  }
}

}  // namespace memattn::cuda
