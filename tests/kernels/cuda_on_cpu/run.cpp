// The CUDA kernels as a library for a processor: one call, block after block.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "cuda/fold.h"
#include "cuda/long_keys.h"
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
    all_ = static_cast<char*>(
        mmap(nullptr, mapped_ + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
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

template <class Kernel, int kWarps>
void run(const ForwardArguments& call, int shared_bytes, bool backwards) {
  Shared shared(shared_bytes);
  Block threads(32 * kWarps);
  for (int block = 0; block < call.blocks; ++block) {
    char* const memory = shared.data();
    threads.run([&](int thread) { Kernel::run(call, memory, block, thread); }, backwards);
  }
}

template <Dtype kDtype, int kDim, int kKeys, bool kStatistics>
constexpr auto short_keys = run<ShortKeys<kDtype, kDim, kKeys, kStatistics>, kShortWarps>;
template <Dtype kDtype, int kDim, bool kStatistics>
constexpr auto long_keys = run<LongKeys<kDtype, kDim, kStatistics>, kLongWarps>;

}  // namespace
}  // namespace memattn::cuda

using namespace memattn::cuda;

extern "C" {

int shared_memory(int dim, int keys, bool statistics) {
  return shared_bytes(dim, keys, statistics);
}

int padded(int keys) { return padded_keys(keys); }

void cut_up(int queries, int keys, int* tiles, int* chunks) {
  const Plan cut = plan(queries, keys);
  *tiles = cut.tiles;
  *chunks = cut.chunks;
}

int blocks(int64_t chunks, int processors, int per_processor) {
  return blocks_of(chunks, processors, per_processor);
}

void fold(const FoldArguments* call, int heads) {
  for (int head = 0; head < heads; ++head)
    for (int thread = 0; thread < kFoldThreads; ++thread)
      for (const bool is_entropy : {false, true}) fold_head(*call, head, is_entropy, thread);
}

// Whether there is such a variant here. KEYS is 0 for what takes any number of many keys.
bool attend(const ForwardArguments* call, bool bfloat16, int dim, bool statistics,
            bool backwards) {
  using enum Dtype;
  const int keys = is_short(call->keys) ? call->padded_keys : 0;
  const int bytes = shared_bytes(dim, call->padded_keys, statistics);
#define CHOSEN(KERNEL, ...)                                        \
  (bfloat16 ? (statistics ? KERNEL<kBFloat16, __VA_ARGS__, true>   \
                          : KERNEL<kBFloat16, __VA_ARGS__, false>) \
            : (statistics ? KERNEL<kFloat16, __VA_ARGS__, true>    \
                          : KERNEL<kFloat16, __VA_ARGS__, false>))
#define SHORT(DIM, KEYS)                                            \
  if (dim == DIM && keys == KEYS) {                                 \
    CHOSEN(short_keys, DIM, KEYS)(*call, bytes, backwards); \
    return true;                                                    \
  }
#define LONG(DIM)                                            \
  if (dim == DIM && keys == 0) {                             \
    CHOSEN(long_keys, DIM)(*call, bytes, backwards); \
    return true;                                             \
  }
  SHORT(8, 80)
  SHORT(8, 32)
  SHORT(16, 80)
  SHORT(32, 80)
  SHORT(32, 128)
  SHORT(40, 80)
  SHORT(64, 32)
  SHORT(64, 80)
  SHORT(72, 128)
  SHORT(80, 80)
  SHORT(96, 32)
  SHORT(112, 128)
  SHORT(128, 80)
  SHORT(160, 80)
  LONG(8)
  LONG(16)
  LONG(32)
  LONG(40)
  LONG(72)
  LONG(112)
#undef LONG
#undef SHORT
#undef CHOSEN
  return false;
}
}
