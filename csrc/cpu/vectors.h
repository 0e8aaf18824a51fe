// Vectors of floats, as wide as the instruction set that includes this file (kLanes), and how the
// three dtypes are read into them and written from them. Included inside that set's namespace.

constexpr int kHalfLanes = kLanes == 16 ? 8 : kLanes;  // head dimensions are multiples of 8

template <int lanes>
struct Vector {
  typedef float Floats __attribute__((vector_size(4 * lanes)));
  typedef int32_t Ints __attribute__((vector_size(4 * lanes)));
  typedef uint32_t Words __attribute__((vector_size(4 * lanes)));
  typedef uint16_t Shorts __attribute__((vector_size(2 * lanes)));
  // as found in memory: aligned like one element, and may alias it
  typedef float LooseFloats __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
  typedef uint16_t LooseShorts __attribute__((vector_size(2 * lanes), aligned(2), may_alias));
};

using Floats = Vector<kLanes>::Floats;
using HalfFloats = Vector<kHalfLanes>::Floats;

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <int lanes = kLanes>
inline typename Vector<lanes>::Floats load(const float* from) {
  return *reinterpret_cast<const typename Vector<lanes>::LooseFloats*>(from);
}

template <int lanes = kLanes>
inline typename Vector<lanes>::Floats load(const BFloat16* from) {
  using V = Vector<lanes>;
  const typename V::Shorts bits = *reinterpret_cast<const typename V::LooseShorts*>(from);
  return reinterpret_cast<typename V::Floats>(__builtin_convertvector(bits, typename V::Words)
                                              << 16);
}

template <int lanes = kLanes>
inline typename Vector<lanes>::Floats load(const Float16* from) {
  using V = Vector<lanes>;
  const typename V::Shorts bits = *reinterpret_cast<const typename V::LooseShorts*>(from);
  return widen(bits);
}

template <int lanes = kLanes>
inline void store(float* to, typename Vector<lanes>::Floats value) {
  *reinterpret_cast<typename Vector<lanes>::LooseFloats*>(to) = value;
}

// Round to nearest, ties to even; a nan keeps its upper bits and becomes quiet.
template <int lanes = kLanes>
inline void store(BFloat16* to, typename Vector<lanes>::Floats value) {
  using V = Vector<lanes>;
  const auto bits = reinterpret_cast<typename V::Words>(value);
  const typename V::Words rounded = bits + 0x7FFF + ((bits >> 16) & 1);
  const typename V::Words quiet = bits | 0x400000;
  const typename V::Words chosen = value == value ? rounded : quiet;
  *reinterpret_cast<typename V::LooseShorts*>(to) =
      __builtin_convertvector(chosen >> 16, typename V::Shorts);
}

template <int lanes = kLanes>
inline void store(Float16* to, typename Vector<lanes>::Floats value) {
  *reinterpret_cast<typename Vector<lanes>::LooseShorts*>(to) = narrow(value);
}

inline Floats broadcast(float value) { return Floats{} + value; }

template <int... lane>
struct Lanes {};
template <int count, int... lane>
struct Count : Count<count - 1, count - 1, lane...> {};
template <int... lane>
struct Count<0, lane...> {
  using type = Lanes<lane...>;
};
using AllLanes = Count<kLanes>::type;

template <int... lane>
inline Vector<kLanes>::Ints numbers(Lanes<lane...>) {
  return Vector<kLanes>::Ints{lane...};
}

// Lane i of the result is lane from[i] of a followed by b.
template <int... from>
inline Floats shuffle(Floats a, Floats b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, from...);
#else
  return __builtin_shuffle(a, b, Vector<kLanes>::Ints{from...});
#endif
}

template <int distance, int... lane>
inline Floats partners(Floats value, Lanes<lane...>) {
  return shuffle<(lane ^ distance)...>(value, value);
}

// Sum and maximum of all lanes, in every lane.
template <int distance = kLanes / 2>
inline Floats sum_of_lanes(Floats value) {
  value = value + partners<distance>(value, AllLanes{});
  if constexpr (distance > 1) value = sum_of_lanes<distance / 2>(value);
  return value;
}

template <int distance = kLanes / 2>
inline Floats maximum_of_lanes(Floats value) {
  value = maximum(value, partners<distance>(value, AllLanes{}));
  if constexpr (distance > 1) value = maximum_of_lanes<distance / 2>(value);
  return value;
}

// Swap the off-diagonal blocks of every 2 x 2 arrangement of blocks of `distance` lanes.
template <int distance, int... lane>
inline void exchange(Floats& upper, Floats& lower, Lanes<lane...>) {
  const Floats a = upper;
  const Floats b = lower;
  upper = shuffle<((lane & distance) ? kLanes + lane - distance : lane)...>(a, b);
  lower = shuffle<((lane & distance) ? kLanes + lane : lane + distance)...>(a, b);
}

template <int distance = 1>
inline void transpose(Floats (&square)[kLanes]) {
#pragma GCC unroll 16
  for (int row = 0; row < kLanes; ++row) {
    if (!(row & distance)) exchange<distance>(square[row], square[row + distance], AllLanes{});
  }
  if constexpr (2 * distance < kLanes) transpose<2 * distance>(square);
}

// Where exponential() is exactly 0, like everywhere below the logarithm of the least normal float
// (-87.3): a removed key, whose shifted logit is clamped to this, receives no attention at all.
constexpr float kLowest = -88.0f;

// e^x for x from kLowest to 88: 0 where it is less than the least normal float, 1 at 0, nan at nan,
// elsewhere off by at most one part in ten million.
//
// 2^n e^r with n = round(x log2 e) and r = x - n ln 2. The polynomial in r is the minimax one of
// relative error (3e-9) among those of degree 6 that begin with 1 + r.
inline Floats exponential(Floats x) {
  constexpr float kLog2E = 1.44269504088896341f;
  // ln 2 in two parts, the first so short that n times it is exact.
  constexpr float kLn2Upper = 0.693359375f;
  constexpr float kLn2Lower = -2.12194440e-4f;
  // Adding it leaves n + 127, the exponent of 2^n, in the lowest bits of the sum.
  constexpr float kShift = 0x1.8p23f + 127.0f;
  const Floats shifted = x * kLog2E + kShift;
  const Floats n = shifted - kShift;
  const Floats r = (x - n * kLn2Upper) - n * kLn2Lower;
  Floats power = r * 0x1.6a1fcp-10f + 0x1.1239dp-7f;
  power = power * r + 0x1.5558f6p-5f;
  power = power * r + 0x1.555492p-3f;
  power = power * r + 0x1.fffffcp-2f;
  power = power * r + 1.0f;
  power = power * r + 1.0f;
  using Ints = Vector<kLanes>::Ints;
  return power * reinterpret_cast<Floats>(reinterpret_cast<Ints>(shifted) << 23);
}

// ln x for x from 1; 0 at 1, nan at nan; off by at most one part in ten million.
//
// k ln 2 + ln m with x = 2^k m and m between the roots of 1/2 and 2. With f = m - 1, ln m = f - f^2
// / 2 + f^3 P(f), where P, of degree 7, is minimax in the relative error of the whole (6e-9).
inline Floats logarithm(Floats x) {
  using Ints = Vector<kLanes>::Ints;
  constexpr int32_t kRootOfHalf = 0x3F3504F3;
  constexpr float kLn2Upper = 0.693359375f;
  constexpr float kLn2Lower = -2.12194440e-4f;
  const Ints bits = reinterpret_cast<Ints>(x);
  const Ints exponent = (bits - kRootOfHalf) >> 23;
  const Floats k = __builtin_convertvector(exponent, Floats);
  const Floats f = reinterpret_cast<Floats>(bits - (exponent << 23)) - 1.0f;
  Floats sum = f * -0x1.38b2fcp-4f + 0x1.055a9ep-3f;
  sum = sum * f - 0x1.0d8558p-3f;
  sum = sum * f + 0x1.22da3ap-3f;
  sum = sum * f - 0x1.547246p-3f;
  sum = sum * f + 0x1.99a006p-3f;
  sum = sum * f - 0x1.000226p-2f;
  sum = sum * f + 0x1.555554p-2f;
  sum = sum * f - 0.5f;
  const Floats result = k * kLn2Upper + (f + (sum * (f * f) + k * kLn2Lower));
  return x == x ? result : x;
}
