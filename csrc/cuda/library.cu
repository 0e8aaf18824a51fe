// The op memattn::cross_attention_cuda. Its schema, fake and autograd are registered in Python
// (memattn/ops/torch_library/cross_attention.py).

#include <torch/csrc/stable/library.h>

#include "cuda/cross_attention.h"

STABLE_TORCH_LIBRARY_IMPL(memattn, CUDA, library) {
  library.impl("cross_attention_cuda", TORCH_BOX(&memattn::cuda::cross_attention));
}
