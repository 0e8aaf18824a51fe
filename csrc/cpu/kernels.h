// Every operation for every dtype. Included inside an instruction set's namespace.

#include "cpu/vectors.h"
#include "cpu/matmul.h"
#include "cpu/head.h"
#include "cpu/strip.h"
#include "cpu/cross_attention_forward.h"
#include "cpu/cross_attention_backward.h"
#include "cpu/column_statistics.h"

int64_t forward_scratch(const Forward& call) { return ForwardScratch<Singles>::size(call.logits); }

void forward(const Forward& call, int64_t begin, int64_t end, float* scratch) {
  switch (call.logits.dtype) {
    case Dtype::kFloat32: return forward_range<Singles, float>(call, begin, end, scratch);
    case Dtype::kBFloat16: return forward_range<Singles, BFloat16>(call, begin, end, scratch);
    case Dtype::kFloat16: return forward_range<Singles, Float16>(call, begin, end, scratch);
  }
}

int64_t backward_scratch(const Backward& call) { return BackwardScratch::size(call.logits); }

void backward(const Backward& call, int64_t begin, int64_t end, float* scratch) {
  switch (call.logits.dtype) {
    case Dtype::kFloat32: return backward_range<float>(call, begin, end, scratch);
    case Dtype::kBFloat16: return backward_range<BFloat16>(call, begin, end, scratch);
    case Dtype::kFloat16: return backward_range<Float16>(call, begin, end, scratch);
  }
}

int64_t column_statistics_scratch(const ColumnStatistics& call) {
  return Strip<Singles>::size(call.logits);
}

void column_statistics(const ColumnStatistics& call, int64_t begin, int64_t end, float* scratch) {
  switch (call.logits.dtype) {
    case Dtype::kFloat32: return column_statistics_range<Singles, float>(call, begin, end, scratch);
    case Dtype::kBFloat16:
      return column_statistics_range<Singles, BFloat16>(call, begin, end, scratch);
    case Dtype::kFloat16:
      return column_statistics_range<Singles, Float16>(call, begin, end, scratch);
  }
}
