#include "cuda/attend.h"

template cudaError_t memattn::cuda::attend<72>(ForwardArguments, Dtype, bool, const Device&,
                                               cudaStream_t);
