// The kernels for x86-64 with AVX-512 (F, VL, BW, DQ) and its bfloat16 instructions.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of gcc 12's own intrinsics
#endif
#include <immintrin.h>

#include "cpu/arguments.h"

// Everything from here on is compiled for these instructions. Nothing that other files share
// (standard library templates, inline functions) may come below: the linker keeps one copy for all
// processors.
#if defined(__clang__)
#pragma clang attribute push(                                                               \
    __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma,f16c")
#endif

namespace memattn::cpu {
namespace {

#include "cpu/lanes16.h"

constexpr int64_t kDepth = 48;  // words of two products

#include "cpu/vectors.h"
#include "cpu/matmul.h"
#include "cpu/head.h"
#include "cpu/strip.h"
#include "cpu/cross_attention_forward.h"
#include "cpu/column_statistics.h"

// Two bfloat16, whose products with two others are added up by one instruction. It takes subnormal
// numbers (below 1.2e-38) for zeros.
struct Pairs {
  static constexpr int64_t kPerWord = 2;

  static __m512 add_product(__m512 sum, float element, __m512 column) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_ps(element)),
                            reinterpret_cast<__m512bh>(column));
  }

  static __m256 add_product(__m256 sum, float element, __m256 column) {
    return _mm256_dpbf16_ps(sum, reinterpret_cast<__m256bh>(_mm256_set1_ps(element)),
                            reinterpret_cast<__m256bh>(column));
  }

  // Words of two rows, the second of which may be missing.
  static void interleave(float* to, const BFloat16* upper, const BFloat16* lower, int64_t dim) {
    for (int64_t d = 0; d < dim; d += kHalfLanes) {
      const auto first = reinterpret_cast<Vector<kHalfLanes>::Words>(load<kHalfLanes>(upper + d));
      const auto second =
          lower ? reinterpret_cast<Vector<kHalfLanes>::Words>(load<kHalfLanes>(lower + d))
                : Vector<kHalfLanes>::Words{};
      store<kHalfLanes>(to + d, reinterpret_cast<HalfFloats>((first >> 16) | second));
    }
  }

  // A vector of floats as words along a row that begins at `to`.
  static void store_along(float* to, int64_t at, Floats value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(reinterpret_cast<BFloat16*>(to) + at),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
  }
};

// Other dtypes, and gradients, are left to the kernels for plain AVX-512.

int64_t forward_scratch(const Forward& call) {
  if (call.logits.dtype != Dtype::kBFloat16) return kAvx512.forward_scratch(call);
  return ForwardScratch<Pairs>::size(call.logits);
}

void forward(const Forward& call, int64_t begin, int64_t end, float* scratch) {
  if (call.logits.dtype != Dtype::kBFloat16) return kAvx512.forward(call, begin, end, scratch);
  forward_range<Pairs, BFloat16>(call, begin, end, scratch);
}

int64_t backward_scratch(const Backward& call) { return kAvx512.backward_scratch(call); }

void backward(const Backward& call, int64_t begin, int64_t end, float* scratch) {
  kAvx512.backward(call, begin, end, scratch);
}

int64_t column_statistics_scratch(const ColumnStatistics& call) {
  if (call.logits.dtype != Dtype::kBFloat16) return kAvx512.column_statistics_scratch(call);
  return Strip<Pairs>::size(call.logits);
}

void column_statistics(const ColumnStatistics& call, int64_t begin, int64_t end, float* scratch) {
  if (call.logits.dtype != Dtype::kBFloat16)
    return kAvx512.column_statistics(call, begin, end, scratch);
  column_statistics_range<Pairs, BFloat16>(call, begin, end, scratch);
}

}  // namespace

const Kernels kAvx512Bf16 = {
    "AVX512_BF16", forward_scratch,           forward,           backward_scratch,
    backward,      column_statistics_scratch, column_statistics,
};

}  // namespace memattn::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
