// The instructions that C++ has no word for, of compute capability 8.0 and later.
//
// Fragments of matrix instructions, for a lane with row = lane / 4 and pair = lane % 4:
//   left [16, 16]: (row, 2 pair), (row + 8, 2 pair), (row, 2 pair + 8), (row + 8, 2 pair + 8)
//   right [16, 8]: (2 pair, row), (2 pair + 8, row); each is two elements, along the sum
//   sum [16, 8]: (row, 2 pair), (row, 2 pair + 1), (row + 8, 2 pair), (row + 8, 2 pair + 1)
#pragma once

#include <cstdint>

#include "cuda/arguments.h"

namespace memattn::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes from global to shared memory; later, once their group has been waited for.
__device__ __forceinline__ void copy_16_bytes(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}

// The copies since the last call are a group, if only an empty one.
__device__ __forceinline__ void end_group_of_copies() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}

// All groups are here but for the latest few.
template <int kLatest>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kLatest) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements; lane i names row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_transposed(uint32_t (&fragment)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(shared_address(row))
               : "memory");
}

// sum += left @ right, 16 x 16 by 16 x 8.
template <Dtype kDtype>
__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&left)[4],
                                             uint32_t right_0, uint32_t right_1) {
  if constexpr (kDtype == Dtype::kFloat16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_0), "r"(right_1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_0), "r"(right_1));
  }
}

// Two numbers rounded to 16 bits, the first one lower.
template <Dtype kDtype>
__device__ __forceinline__ uint32_t packed(float low, float high) {
  uint32_t pair;
  if constexpr (kDtype == Dtype::kFloat16) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
}

__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

// Not the processor's own, whose error near 1 is that of an entropy where one key has nearly all.
__device__ __forceinline__ float log2_of(float x) { return log2f(x); }

// The value of the lane whose number differs in the bits of `mask`.
__device__ __forceinline__ float across(float value, int mask) {
  return __shfl_xor_sync(0xffffffff, value, mask);
}

__device__ __forceinline__ void wait_for_warp() { __syncwarp(); }
__device__ __forceinline__ void wait_for_block() { __syncthreads(); }

}  // namespace memattn::cuda
