// csrc/cuda/instructions.h for a processor: warps of 32 lanes that meet at every instruction of a
// warp, each lane a context of its own. What a lane may not rely on does not happen here either: a
// copy arrives as late as it may or, in the other order of lanes, as soon; memory starts as nan.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <vector>

#include "cuda/arguments.h"

#define __device__
#define __forceinline__ inline

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace memattn::cuda {

struct Copy {
  void* to;
  const void* from;
};

struct Lane {
  ucontext_t start;
  jmp_buf place;
  std::vector<char> stack = std::vector<char>(1 << 17);
  std::deque<std::vector<Copy>> groups;  // of copies; the last one is open
  bool started = false, done = false, at_barrier = false;
  uint32_t given[6];
  const void* row;
};

// The threads of one block, run in turns.
struct Block {
  std::vector<Lane> lanes;
  ucontext_t outside;
  jmp_buf scheduler;
  int current = 0;
  std::function<void(int)> body;
  bool backwards = false;

  explicit Block(int threads) : lanes(threads) {}

  static Block*& running() {
    static Block* block = nullptr;
    return block;
  }

  static void enter() {
    Block& block = *running();
    block.body(block.current);
    block.lanes[block.current].done = true;
    _longjmp(block.scheduler, 1);
  }

  // Jumps, because swapcontext would ask the system for the signal mask every time.
  void resume(Lane& lane) {
    if (_setjmp(scheduler)) return;
    if (lane.started) _longjmp(lane.place, 1);
    lane.started = true;
    swapcontext(&outside, &lane.start);
  }

  // `from_last`: the last lane of all goes first, and copies arrive at once. It must not change a
  // thing.
  void run(std::function<void(int)> thread, bool from_last) {
    body = std::move(thread);
    backwards = from_last;
    running() = this;
    for (Lane& lane : lanes) {
      getcontext(&lane.start);
      lane.start.uc_stack.ss_sp = lane.stack.data();
      lane.start.uc_stack.ss_size = lane.stack.size();
      lane.start.uc_link = nullptr;
      lane.groups.assign(1, {});
      lane.started = lane.done = lane.at_barrier = false;
      makecontext(&lane.start, &Block::enter, 0);
    }
    const int count = static_cast<int>(lanes.size());
    for (bool going = true; going;) {
      bool resumed = false;
      going = false;
      for (int i = 0; i < count; ++i) {
        current = backwards ? count - 1 - i : i;
        Lane& lane = lanes[current];
        if (lane.done) continue;
        going = true;
        if (lane.at_barrier) continue;
        resumed = true;
        resume(lane);
      }
      if (!resumed)
        for (Lane& lane : lanes) lane.at_barrier = false;
    }
  }

  Lane& lane() { return lanes[current]; }
  Lane& of_warp(int lane) { return lanes[current / 32 * 32 + lane]; }
  int in_warp() const { return current % 32; }
  void meet() {
    if (!_setjmp(lane().place)) _longjmp(scheduler, 1);
  }
};

inline Block& block() { return *Block::running(); }

inline void wait_for_warp() { block().meet(); }

inline void wait_for_block() {
  block().lane().at_barrier = true;
  block().meet();
}

inline void arrive(const Copy& copy) { std::memcpy(copy.to, copy.from, 16); }

inline void copy_16_bytes(void* shared, const void* global) {
  const Copy copy{shared, global};
  if (block().backwards)
    arrive(copy);
  else
    block().lane().groups.back().push_back(copy);
}

inline void end_group_of_copies() { block().lane().groups.emplace_back(); }

template <int kLatest>
void wait_for_copies() {
  auto& groups = block().lane().groups;
  for (; groups.size() > kLatest + 1; groups.pop_front())
    for (const Copy& copy : groups.front()) arrive(copy);
}

inline const uint16_t* row_of(int lane) {
  return static_cast<const uint16_t*>(block().of_warp(lane).row);
}

inline uint32_t pair_of(uint16_t low, uint16_t high) { return low | uint32_t{high} << 16; }

inline void load_matrices(uint32_t (&fragment)[4], const void* row) {
  block().lane().row = row;
  block().meet();
  const int row_in = block().in_warp() / 4, pair = block().in_warp() % 4;
  for (int m = 0; m < 4; ++m) {
    const uint16_t* const from = row_of(8 * m + row_in) + 2 * pair;
    fragment[m] = pair_of(from[0], from[1]);
  }
  block().meet();
}

inline void load_transposed(uint32_t (&fragment)[4], const void* row) {
  block().lane().row = row;
  block().meet();
  const int column = block().in_warp() / 4, pair = block().in_warp() % 4;
  for (int m = 0; m < 4; ++m)
    fragment[m] = pair_of(row_of(8 * m + 2 * pair)[column], row_of(8 * m + 2 * pair + 1)[column]);
  block().meet();
}

template <Dtype kDtype>
float widened(uint16_t bits) {
  if constexpr (kDtype == Dtype::kFloat16) {
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return static_cast<float>(value);
  } else {
    const uint32_t wide = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
}

template <Dtype kDtype>
uint16_t narrowed(float value) {
  uint16_t bits;
  if constexpr (kDtype == Dtype::kFloat16) {
    const _Float16 half = static_cast<_Float16>(value);
    std::memcpy(&bits, &half, 2);
  } else {
    uint32_t wide;
    std::memcpy(&wide, &value, 4);
    if (std::isnan(value)) return 0x7fff;
    bits = static_cast<uint16_t>((wide + 0x7fff + (wide >> 16 & 1)) >> 16);
  }
  return bits;
}

template <Dtype kDtype>
void multiply_add(float (&sum)[4], const uint32_t (&left)[4], uint32_t right_0, uint32_t right_1) {
  std::memcpy(block().lane().given, left, sizeof left);
  block().lane().given[4] = right_0;
  block().lane().given[5] = right_1;
  block().meet();
  const auto element = [](int lane, int fragment, int place) {
    return widened<kDtype>(
        static_cast<uint16_t>(block().of_warp(lane).given[fragment] >> 16 * place));
  };
  for (int i = 0; i < 4; ++i) {
    const int row = block().in_warp() / 4 + 8 * (i / 2);
    const int column = 2 * (block().in_warp() % 4) + i % 2;
    double total = sum[i];
    for (int k = 0; k < 16; ++k) {
      const float a = element(row % 8 * 4 + k % 8 / 2, row / 8 + 2 * (k / 8), k % 2);
      const float b = element(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
      total += double{a} * double{b};
    }
    sum[i] = static_cast<float>(total);
  }
  block().meet();
}

template <Dtype kDtype>
uint32_t packed(float low, float high) {
  return pair_of(narrowed<kDtype>(low), narrowed<kDtype>(high));
}

// With the error that the processor's own may have (PTX: 2 to the power of -22, relative).
inline float exp2_of(float x) {
  const float y = std::exp2(x);
  if (!std::isnormal(y)) return std::fpclassify(y) == FP_SUBNORMAL ? 0.0f : y;
  return y * (1 + std::ldexp(std::sin(1e3f * x), -22));
}
inline float log2_of(float x) { return std::log2(x); }

inline float across(float value, int mask) {
  std::memcpy(block().lane().given, &value, 4);
  block().meet();
  float other;
  std::memcpy(&other, block().of_warp(block().in_warp() ^ mask).given, 4);
  block().meet();
  return other;
}

}  // namespace memattn::cuda
