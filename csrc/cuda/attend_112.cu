#include "cuda/attend.h"

template cudaError_t memattn::cuda::attend<112>(const ForwardArguments&, Dtype, bool, int, int,
                                                cudaStream_t);
