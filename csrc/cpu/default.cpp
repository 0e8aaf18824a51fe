// The kernels for any processor: four lanes, which every 64-bit one has.

#include <torch/headeronly/util/Half.h>

#include "cpu/arguments.h"

namespace memattn::cpu {
namespace {

constexpr int kLanes = 4;
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;  // 6 x 2 sums, 2 columns and an element fill 16 registers
constexpr int64_t kDepth = 24;   // without fused multiply-add every term is rounded twice

typedef float FourFloats __attribute__((vector_size(16)));
typedef uint16_t FourShorts __attribute__((vector_size(8)));

inline FourFloats maximum(FourFloats a, FourFloats b) { return a > b ? a : b; }  // b if one is nan

inline FourFloats widen(FourShorts bits) {
  FourFloats value;
  for (int lane = 0; lane < 4; ++lane)
    value[lane] = torch::headeronly::detail::fp16_ieee_to_fp32_value(bits[lane]);
  return value;
}

inline FourShorts narrow(FourFloats value) {
  FourShorts bits;
  for (int lane = 0; lane < 4; ++lane)
    bits[lane] = torch::headeronly::detail::fp16_ieee_from_fp32_value(value[lane]);
  return bits;
}

#include "cpu/kernels.h"

}  // namespace

const Kernels kDefault = {
    "DEFAULT", forward_scratch,           forward,           backward_scratch,
    backward,  column_statistics_scratch, column_statistics,
};

}  // namespace memattn::cpu
