// The op of the kernel on the hub, in the namespace that the builder makes up for each build.

#include <torch/csrc/stable/library.h>

#include "cuda/cross_attention.h"
#include "registration.h"

STABLE_TORCH_LIBRARY_EXPAND(TORCH_EXTENSION_NAME, library) {
  library.def(
      "cross_attention(Tensor query, Tensor key, Tensor value, Tensor? key_bias, "
      "Tensor? begin_scale, Tensor? token, float scale, bool statistics, bool logsumexp) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL_EXPAND(TORCH_EXTENSION_NAME, CUDA, library) {
  library.impl("cross_attention", TORCH_BOX(&memattn::cuda::cross_attention));
}

REGISTER_EXTENSION(TORCH_EXTENSION_NAME)
