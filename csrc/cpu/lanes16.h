// Sixteen lanes, and the tile that fills their registers. Included inside the namespace of a set of
// AVX-512 instructions.

constexpr int kLanes = 16;
constexpr int kTileRows = 5;
constexpr int kTileVectors = 5;  // 5 x 5 sums, 5 columns and an element take 31 of 32 registers

inline __m512 maximum(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }  // b if one is nan
