// What a range of work needs to know, in plain data: it crosses from code compiled for any
// processor to code compiled for one instruction set.
#pragma once

#include <cstdint>

namespace memattn::cpu {

enum class Dtype { kFloat32, kBFloat16, kFloat16 };

// A [batch, head, row, dim] tensor whose last axis is contiguous; strides in elements.
struct Rows {
  const void* data;
  int64_t batch_stride;
  int64_t head_stride;
  int64_t row_stride;
};

// The same, written to.
struct MutableRows {
  void* data;
  int64_t batch_stride;
  int64_t head_stride;
  int64_t row_stride;
};

// Axes B, H, Lq, Lk, D, and what logits are made of.
struct Logits {
  Dtype dtype;
  int64_t batch, heads, queries, keys, dim;
  float scale;
  Rows query, key;
  const float* key_bias;     // [B, Lk], or null
  const float* begin_scale;  // [B], or null
};

// Query blocks are of a fixed size: their sums, folded in block order, are then the same for every
// number of threads and for every batch a sample is part of. Both are multiples of every tile
// height.
constexpr int64_t kForwardBlock = 240;
constexpr int64_t kBackwardBlock = 960;

constexpr int64_t blocks_of(int64_t queries, int64_t block) {
  return (queries + block - 1) / block;
}

// Sums over the queries of each block.
struct Sums {
  float* mass;  // [B, H, blocks, stride], or null; likewise entropy
  float* entropy;
  int64_t stride;  // Lk in whole vectors of any width
};

struct Forward {
  Logits logits;
  Rows value;
  const int64_t* token;  // [B], or null
  MutableRows output;
  Sums sums;
  float* token_map;  // [B, H, Lq], or null
  float* logsumexp;  // [B, H, Lq], or null
};

struct Backward {
  Logits logits;
  Rows value;
  Rows grad_output;
  const float* logsumexp;  // [B, H, Lq]
  MutableRows grad_query;
  float* grad_key;  // parts [B, H, blocks, Lk, D]; likewise grad_value
  float* grad_value;
};

struct ColumnStatistics {
  Logits logits;           // Lk is the number of columns
  const float* logsumexp;  // [B, H, Lq], or null: of the columns alone
  const int64_t* token;    // [B], or null
  Sums sums;
  float* token_map;  // [B, H, Lq], or null
};

// One instruction set's code. A unit of work is one query block of one head of one sample; units
// are numbered in that order, so that a range of them meets each head's keys and values once.
struct Kernels {
  const char* name;  // as torch.backends.cpu.get_cpu_capability() spells it, where it has a word
  int64_t (*forward_scratch)(const Forward&);  // floats that `forward` wants at `scratch`
  void (*forward)(const Forward&, int64_t begin, int64_t end, float* scratch);
  int64_t (*backward_scratch)(const Backward&);
  void (*backward)(const Backward&, int64_t begin, int64_t end, float* scratch);
  int64_t (*column_statistics_scratch)(const ColumnStatistics&);
  void (*column_statistics)(const ColumnStatistics&, int64_t begin, int64_t end, float* scratch);
};

extern const Kernels kDefault;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kAvx512Bf16;
#endif

}  // namespace memattn::cpu
