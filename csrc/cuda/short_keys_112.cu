#include "cuda/short_keys_launch.h"

template cudaError_t memattn::cuda::attend<112>(const ForwardArguments&, Dtype, int, bool, int,
                                                cudaStream_t);
