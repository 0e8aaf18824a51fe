// The kernels for x86-64 with AVX2, FMA and F16C.
#if defined(__x86_64__)

#include <immintrin.h>

#include "cpu/arguments.h"

// Everything from here on is compiled for these instructions. Nothing that other files share
// (standard library templates, inline functions) may come below: the linker keeps one copy for all
// processors.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

namespace memattn::cpu {
namespace {

constexpr int kLanes = 8;
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;  // 6 x 2 sums, 2 columns and an element fill 16 registers
constexpr int64_t kDepth = 96;

typedef uint16_t EightShorts __attribute__((vector_size(16)));

inline __m256 maximum(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }  // b if one is nan

inline __m256 widen(EightShorts bits) { return _mm256_cvtph_ps(reinterpret_cast<__m128i>(bits)); }

inline EightShorts narrow(__m256 value) {
  return reinterpret_cast<EightShorts>(_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}

#include "cpu/kernels.h"

}  // namespace

const Kernels kAvx2 = {
    "AVX2",   forward_scratch,           forward,           backward_scratch,
    backward, column_statistics_scratch, column_statistics,
};

}  // namespace memattn::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
