#include "cuda/attend.h"

template cudaError_t memattn::cuda::attend<40>(const ForwardArguments&, Dtype, bool, int,
                                               cudaStream_t);
