// Random arrays, with the CPU's numbers: element i depends on the seed, the call and i alone (ops/philox.h). A thread
// makes the four numbers of one block of the generator.
//
// Defined in front: T and R, the elements' type, integers and bools are converted from float32; and one of OWL_UNIFORM,
// OWL_NORMAL and OWL_BERNOULLI.
//
// Slots: 2 the number of elements, 3 the seed, 4 the call; 5 low, 6 high, 7 the number below it; or 5 mu, 6 sigma; or 5
// the probability; 8 the element of the whole random array that is the first here, which may be inside a block.

namespace philox = owl::philox;

constexpr int kEach = 4;

// The type in which numbers are drawn.
template <class To> struct Drawn { using type = float; };
template <> struct Drawn<double> { using type = double; };
using F = Drawn<T>::type;

struct Numbers {
  F v[kEach];
};

// In [0, 1).
OWL_DEVICE Numbers units(const Arguments& args, uint64_t block, const philox::Words& high) {
  Numbers u;
  if constexpr (sizeof(F) == 8) {
    const philox::Words low = philox::philox4x32_10(block | philox::kLowWords, args.slot[4], args.slot[3]);
    OWL_UNROLL for (int k = 0; k < kEach; ++k) u.v[k] = philox::unit64(high.w[k], low.w[k]);
  } else {
    OWL_UNROLL for (int k = 0; k < kEach; ++k) u.v[k] = philox::unit(high.w[k]);
  }
  return u;
}

OWL_DEVICE Numbers draw(const Arguments& args, uint64_t block) {
  const philox::Words words = philox::philox4x32_10(block, args.slot[4], args.slot[3]);
  const F a = static_cast<F>(number(args, 5));
  Numbers z;
#ifdef OWL_UNIFORM
  const F high = static_cast<F>(number(args, 6)), last = static_cast<F>(number(args, 7));
  z = units(args, block, words);
  OWL_UNROLL for (int k = 0; k < kEach; ++k) z.v[k] = philox::between(a, high, last, z.v[k]);
#elif defined OWL_BERNOULLI
  z = units(args, block, words);
  OWL_UNROLL for (int k = 0; k < kEach; ++k) z.v[k] = z.v[k] < a ? F(1) : F(0);
#else
  const F sigma = static_cast<F>(number(args, 6));
  if constexpr (sizeof(F) == 8) {
    const Numbers u = units(args, block, words);
    OWL_UNROLL for (int k = 0; k < kEach; ++k)
      z.v[k] = a + sigma * philox::normal64(u.v[k & 2], u.v[(k & 2) + 1], k & 1);
  } else {
    OWL_UNROLL for (int k = 0; k < kEach; k += 2) {
      const philox::Pair pair = philox::normal_pair(words.w[k], words.w[k + 1]);
      z.v[k] = a + sigma * pair.a;
      z.v[k + 1] = a + sigma * pair.b;
    }
  }
#endif
  return z;
}

OWL_DEVICE T converted(F x) {
  if constexpr (owl::elementwise_ops::same<T, F>) return x;
  else return owl::elementwise_ops::convert<double, T>(__builtin_floor(static_cast<double>(x)));
}

OWL_KERNEL(owl_random) {
  OWL_SHARED Numbers drawn[kBlock];  // so that adjacent threads store adjacent elements
  const int64_t first = integer(args, 8);
  const Index skipped = static_cast<Index>(first % kEach);
  OWL_THREADS(t) drawn[t] = draw(args, static_cast<uint64_t>(first) / kEach + static_cast<uint64_t>(block) * kBlock + t);
  OWL_SYNC;
  OWL_THREADS(t) {
    OWL_UNROLL for (int k = 0; k < kEach; ++k) {
      const int at = k * kBlock + t;
      const Index i = block * (kBlock * kEach) + at - skipped;
      if (i >= 0 && i < integer(args, 2)) store(args, i, converted(drawn[at / kEach].v[at % kEach]));
    }
  }
}
