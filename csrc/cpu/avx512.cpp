// The kernels for x86-64 with AVX-512 (F, VL, BW, DQ).
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
#pragma clang attribute push(                                                    \
    __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")
#endif

namespace memattn::cpu {
namespace {

#include "cpu/lanes16.h"

constexpr int64_t kDepth = 96;

typedef uint16_t EightShorts __attribute__((vector_size(16)));
typedef uint16_t SixteenShorts __attribute__((vector_size(32)));

inline SixteenShorts narrow(__m512 value) {
  return reinterpret_cast<SixteenShorts>(_mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}

inline __m256 widen(EightShorts bits) { return _mm256_cvtph_ps(reinterpret_cast<__m128i>(bits)); }

inline EightShorts narrow(__m256 value) {
  return reinterpret_cast<EightShorts>(_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}

#include "cpu/kernels.h"

}  // namespace

const Kernels kAvx512 = {
    "AVX512", forward_scratch,           forward,           backward_scratch,
    backward, column_statistics_scratch, column_statistics,
};

}  // namespace memattn::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
