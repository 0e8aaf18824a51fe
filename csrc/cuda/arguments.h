// What a launch hands to its kernel: plain data, for host and device.
#pragma once

#include <cstdint>

namespace memattn::cuda {

enum class Dtype { kFloat16, kBFloat16 };

// A tensor [B, H, L, D] whose last axis is contiguous; strides in elements.
struct Rows {
  const void* data;
  int64_t batch, head;
  int position;
};

// Attention of all queries [B, H, Lq, D] over keys that fit shared memory. What is null was not
// given or not asked for. The output is [B, Lq, H, D], without gaps.
struct ForwardArguments {
  Rows query, key, value;
  const float* key_bias;     // [B, Lk]
  const float* begin_scale;  // [B]
  const int64_t* token;      // [B]
  void* output;
  float* mass;  // [B, H, chunks, Lk], and so
  float* entropy;
  float* token_map;  // [B, H, Lq]
  float* logsumexp;  // [B, H, Lq]
  int heads, queries, keys;
  int padded_keys;   // as planned
  int tiles;         // per chunk
  int chunks;        // per head
  int all_chunks;    // of all heads of all samples
  int blocks;        // that share them
  float scale_log2;  // scale times log2 e: logits are to base 2
};

// Sums of chunks [heads, chunks, keys], and where they go, [heads, keys].
struct FoldArguments {
  const float* mass;
  const float* entropy;
  float* folded_mass;
  float* folded_entropy;
  int chunks, keys;
};

}  // namespace memattn::cuda
