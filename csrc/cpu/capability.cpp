#include "cpu/capability.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <string>
#include <string_view>

namespace memattn::cpu {
namespace {

#if defined(__x86_64__)
// clang's __builtin_cpu_supports does not know the word.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

const Kernels& choose() {
#if defined(__x86_64__)
  const char* const setting = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string_view cap = setting ? setting : "";
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq");
  if (avx512 && cap != "avx2" && cap != "default")
    return cap != "avx512" && __builtin_cpu_supports("avx512bf16") ? kAvx512Bf16 : kAvx512;
  if (avx2 && cap != "default") return kAvx2;
#endif
  return kDefault;
}

std::string cpu_capability() { return kernels().name; }

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace memattn::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(memattn, library) { library.def("cpu_capability() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(memattn, CompositeExplicitAutograd, library) {
  library.impl("cpu_capability", TORCH_BOX(&memattn::cpu::cpu_capability));
}
