#include "cuda/attend.h"

template cudaError_t memattn::cuda::attend<80>(const ForwardArguments&, Dtype, bool, int, int,
                                               cudaStream_t);
