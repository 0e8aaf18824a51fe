// How a call is cut up: arithmetic without a GPU. None of it may depend on B or H, or a sample's
// sums would depend on its neighbours.
#pragma once

#include <cstdint>

namespace memattn::cuda {

constexpr int kWarps = 4;  // per block
constexpr int kRows = 16;  // queries of one warp at a time: rows of one matrix instruction
constexpr int kTile = kWarps * kRows;  // queries of one block at a time
constexpr int kStages = 2;             // tiles of queries that a warp holds: one is being loaded
constexpr int kMostTiles = 4;          // per block
constexpr int kBlocksPerHead = 16;     // as long as a block has more than one tile

// What numbers of keys are rounded up to: 77 keys cost 80.
constexpr int kPaddedKeys[] = {32, 80, 128};
constexpr int kMostKeys = kPaddedKeys[2];
constexpr int kMostBlocks = 2147483647;
constexpr int kMostQueries = 1 << 30;

constexpr int padded_keys(int keys) {
  int at = 0;
  while (kPaddedKeys[at] < keys) ++at;
  return kPaddedKeys[at];
}

constexpr int64_t divided_up(int64_t length, int size) { return (length + size - 1) / size; }
constexpr int padded(int length, int size) { return divided_up(length, size) * size; }

// Elements from one row in shared memory to the next. Depth is padded to what a matrix instruction
// takes; 8 more leave the 16 bytes at one place of any 8 rows on different banks.
constexpr int row_stride(int dim) { return padded(dim, 16) + 8; }

// Whether a lane's sums, four numbers for every 8 keys, are in shared memory: beside the logits of
// more keys they do not fit the registers.
constexpr bool sums_in_shared(int padded_keys) { return padded_keys > 80; }

// Bytes of shared memory: keys, values, the keys' shifts, each warp's queries, and the sums.
constexpr int shared_bytes(int dim, int padded_keys, bool statistics) {
  const int row = 2 * row_stride(dim);
  const int sums = statistics && sums_in_shared(padded_keys) ? kWarps * 32 * 2 * padded_keys : 0;
  return 2 * padded_keys * row + 4 * padded_keys + kWarps * kStages * kRows * row + sums;
}

struct Plan {
  int tiles;   // per block
  int chunks;  // blocks per head
};

constexpr Plan plan(int queries) {
  const int all = divided_up(queries, kTile);
  int tiles = all / kBlocksPerHead;
  tiles = tiles < 1 ? 1 : tiles > kMostTiles ? kMostTiles : tiles;
  return {tiles, static_cast<int>(divided_up(all, tiles))};
}

}  // namespace memattn::cuda
