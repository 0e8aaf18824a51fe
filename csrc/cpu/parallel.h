// Units of work on torch's threads, and sums that do not depend on which thread took which. For the
// files that are compiled for any processor.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

#include "cpu/arguments.h"

namespace memattn::cpu {

constexpr std::align_val_t kCacheLine{64};

struct FreeAligned {
  void operator()(float* memory) const { ::operator delete[](memory, kCacheLine); }
};
using FloatBuffer = std::unique_ptr<float[], FreeAligned>;

// Null where there is no memory: an exception could not leave a thread of torch's.
inline FloatBuffer allocate(int64_t count) {
  if (count < 0 || count > PTRDIFF_MAX / static_cast<int64_t>(sizeof(float))) return nullptr;
  return FloatBuffer(
      static_cast<float*>(::operator new[](count * sizeof(float), kCacheLine, std::nothrow)));
}

// Multiplications of one product below which a second thread costs more than it does.
constexpr int64_t kLeastWork = 1 << 19;

// Run `work(begin, end, scratch)` over ranges of all heads' blocks, which are of so many queries,
// with so many floats for each thread.
template <typename Work>
void run_in_parallel(const char* op, const Logits& l, int64_t block, int64_t scratch_floats,
                     const Work& work) {
  const int64_t units = l.batch * l.heads * blocks_of(l.queries, block);
  const int64_t unit_work = std::min(block, l.queries) * l.keys * l.dim;
  const int64_t grain = kLeastWork / std::max<int64_t>(unit_work, 1) + 1;
  std::atomic<bool> has_memory = true;
  torch::stable::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) {
    const FloatBuffer scratch = allocate(scratch_floats);
    if (scratch) {
      work(begin, end, scratch.get());
    } else {
      has_memory = false;
    }
  });
  STD_TORCH_CHECK(has_memory, op, ": got no memory for ", scratch_floats, " floats per thread");
}

// Add the blocks' sums [heads, blocks, stride] in block order, whoever computed them: [heads,
// length].
inline void fold(const float* parts, int64_t heads, int64_t blocks, int64_t stride, int64_t length,
                 float* total) {
  for (int64_t head = 0; head < heads; ++head) {
    const float* const first = parts + head * blocks * stride;
    for (int64_t k = 0; k < length; ++k) {
      double sum = 0.0;
      for (int64_t block = 0; block < blocks; ++block) sum += first[block * stride + k];
      total[head * length + k] = static_cast<float>(sum);
    }
  }
}

// Memory for the sums of all heads' blocks, and their fold.
class BlockSums {
 public:
  BlockSums(const char* op, const Logits& l, bool wanted)
      : heads_(l.batch * l.heads),
        blocks_(blocks_of(l.queries, kForwardBlock)),
        keys_(l.keys),
        stride_((l.keys + kWidestVector - 1) / kWidestVector * kWidestVector) {
    if (!wanted) return;
    parts_ = allocate(2 * heads_ * blocks_ * stride_);
    STD_TORCH_CHECK(parts_, op, ": got no memory for the blocks' sums");
  }

  Sums sums() const {
    if (!parts_) return {};
    return {parts_.get(), parts_.get() + heads_ * blocks_ * stride_, stride_};
  }

  // [B, H, Lk] each.
  void fold_into(float* mass, float* entropy) const {
    if (!parts_) return;
    fold(sums().mass, heads_, blocks_, stride_, keys_, mass);
    fold(sums().entropy, heads_, blocks_, stride_, keys_, entropy);
  }

 private:
  static constexpr int64_t kWidestVector = 16;  // floats
  int64_t heads_, blocks_, keys_, stride_;
  FloatBuffer parts_;
};

}  // namespace memattn::cpu
