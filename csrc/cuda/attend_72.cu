#include "cuda/attend.h"

template cudaError_t memattn::cuda::attend<72>(const ForwardArguments&, Dtype, bool, int, int,
                                               cudaStream_t);
