// The CUDA kernels as a library for a processor: one call, block after block.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "cuda/fold.h"
#include "cuda/plan.h"
#include "cuda/short_keys.h"

namespace memattn::cuda {
namespace {

// Shared memory that begins as nan and ends where none is mapped.
class Shared {
 public:
  explicit Shared(int bytes) : bytes_(bytes) {
    const size_t page = sysconf(_SC_PAGESIZE);
    mapped_ = (bytes + page - 1) / page * page;
    all_ = static_cast<char*>(mmap(nullptr, mapped_ + page, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(all_, mapped_, PROT_READ | PROT_WRITE);
  }
  ~Shared() { munmap(all_, mapped_ + sysconf(_SC_PAGESIZE)); }
  char* data() {
    std::memset(all_, 0xff, mapped_);
    return all_ + mapped_ - bytes_;
  }

 private:
  int bytes_;
  size_t mapped_;
  char* all_;
};

template <Dtype kDtype, int kDim, int kKeys, bool kStatistics>
void run(const ForwardArguments& call, int blocks, bool backwards) {
  Shared shared(shared_bytes(kDim, kKeys, kStatistics));
  Block threads(32 * kWarps);
  for (int block = 0; block < blocks; ++block) {
    char* const memory = shared.data();
    threads.run(
        [&](int thread) {
          ShortKeys<kDtype, kDim, kKeys, kStatistics>::run(call, memory, block, thread);
        },
        backwards);
  }
}

}  // namespace
}  // namespace memattn::cuda

using namespace memattn::cuda;

extern "C" {

int shared_memory(int dim, int keys, bool statistics) {
  return shared_bytes(dim, keys, statistics);
}

void cut_up(int queries, int* tiles, int* chunks) {
  const Plan cut = plan(queries);
  *tiles = cut.tiles;
  *chunks = cut.chunks;
}

void fold(const FoldArguments* call) {
  for (int64_t index = 0; index < call->heads * call->keys + 100; ++index) fold_key(*call, index);
}

// Whether there is such a variant here.
bool attend(const ForwardArguments* call, bool bfloat16, int dim, int keys, bool statistics,
            int blocks, bool backwards) {
#define VARIANT(DIM, KEYS)                                                                     \
  if (dim == DIM && keys == KEYS) {                                                            \
    using enum Dtype;                                                                          \
    const auto chosen = bfloat16                                                               \
                            ? (statistics ? run<kBFloat16, DIM, KEYS, true>                    \
                                          : run<kBFloat16, DIM, KEYS, false>)                  \
                            : (statistics ? run<kFloat16, DIM, KEYS, true>                     \
                                          : run<kFloat16, DIM, KEYS, false>);                  \
    chosen(*call, blocks, backwards);                                                          \
    return true;                                                                               \
  }
  VARIANT(8, 80)
  VARIANT(8, 32)
  VARIANT(16, 80)
  VARIANT(32, 80)
  VARIANT(32, 128)
  VARIANT(40, 80)
  VARIANT(64, 32)
  VARIANT(72, 128)
  VARIANT(80, 80)
  VARIANT(96, 32)
  VARIANT(112, 128)
  VARIANT(128, 80)
  VARIANT(160, 80)
#undef VARIANT
  return false;
}
}
