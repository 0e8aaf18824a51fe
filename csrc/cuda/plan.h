// How a call is cut up: arithmetic without a GPU. A chunk is what one sum is of; none of what makes
// it may depend on B or H, or a sample's sums would depend on its neighbours. Which block computes
// a chunk does not change it.
#pragma once

#include <cstdint>

namespace memattn::cuda {

constexpr int kRows = 16;     // queries of one warp at a time: rows of one matrix instruction
constexpr int kKeyStep = 16;  // keys that a matrix instruction sums over
constexpr int kMostChunks = 2147483647;
constexpr int kMostQueries = 1 << 30;

// What numbers of keys are rounded up to where all logits of a query are in registers: 77 keys cost
// 80. More keys are gone over in steps, twice.
constexpr int kShortKeys[] = {32, 80, 128};
constexpr int kMostShortKeys = kShortKeys[2];
constexpr int kMostKeys = 320;

// Warps per block. Keys that fill the shared memory of a multiprocessor have to serve more of them.
constexpr int kShortWarps = 4, kLongWarps = 8;
// Tiles of queries that a warp has room for. With short keys all but one are on their way
// meanwhile: two small ones, or too few bytes would be for as long as memory takes to answer. With
// long keys a warp has its queries in registers.
constexpr int stages(int dim, bool is_short) { return !is_short ? 1 : dim <= 40 ? 3 : 2; }

constexpr int64_t divided_up(int64_t length, int64_t size) { return (length + size - 1) / size; }
constexpr int padded(int length, int size) { return divided_up(length, size) * size; }

constexpr bool is_short(int keys) { return keys <= kMostShortKeys; }

constexpr int padded_keys(int keys) {
  if (!is_short(keys)) return padded(keys, kKeyStep);
  int at = 0;
  while (kShortKeys[at] < keys) ++at;
  return kShortKeys[at];
}

// Elements from one row in shared memory to the next. Depth is padded to what a matrix instruction
// takes; 8 more leave the 16 bytes at one place of any 8 rows on different banks.
constexpr int row_stride(int dim) { return padded(dim, 16) + 8; }

// Whether a lane has its sums, four numbers for every 8 keys, in registers. Beside the logits of
// more keys there is no room: then the rows of each tile are added up at once, into shared memory.
constexpr bool sums_in_registers(int padded_keys) { return padded_keys <= 80; }

constexpr int kSumsPerKey = 2;  // mass and entropy of one warp, where rows are added up

// Bytes of shared memory: keys, values, the keys' shifts, each warp's queries, and its sums.
constexpr int shared_bytes(int dim, int keys, bool statistics) {
  const int padded = padded_keys(keys), row = 2 * row_stride(dim);
  const int warps = is_short(keys) ? kShortWarps : kLongWarps;
  const int queries = stages(dim, is_short(keys)) * kRows * row;
  const int of_warp = queries + (statistics ? 4 * kSumsPerKey * padded : 0);
  return 2 * padded * row + 4 * padded + warps * of_warp;
}

struct Plan {
  int tiles;   // of queries, per chunk
  int chunks;  // per head
};

// Small chunks are shared out evenly; each costs a sum over the rows of a block, and one to fold.
constexpr Plan plan(int queries, int keys) {
  const int64_t tile = kRows * (is_short(keys) ? kShortWarps : kLongWarps);
  const int tiles = queries < 32 * tile ? 1 : queries < 512 * tile ? 2 : 4;
  return {tiles, static_cast<int>(divided_up(queries, tiles * tile))};
}

// Blocks of a launch: as many as a GPU runs at a time, if there are chunks for them.
constexpr int blocks_of(int64_t chunks, int processors, int per_processor) {
  const int64_t at_a_time = int64_t{processors} * per_processor;
  return static_cast<int>(chunks < at_a_time ? chunks : at_a_time);
}

}  // namespace memattn::cuda
