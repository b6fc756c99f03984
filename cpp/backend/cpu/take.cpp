#include "backend/cpu/take.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <memory>

#include "base/visit_dtype.h"
#include "ops/take.h"
#include "owl/error.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kIndexChunk = 1 << 16;   // indices
constexpr std::int64_t kChunkBytes = 256 * 1024;
constexpr std::int64_t kAhead = 8;              // rows that are fetched before their turn
constexpr std::int64_t kLine = 64, kMostLines = 8;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The rows of random places are fetched into the cache some time before they are read.
inline void fetch(const void* row, std::int64_t bytes) {
  const auto* const at = static_cast<const char*>(row);
  for (std::int64_t i = 0; i < std::min(bytes, kMostLines * kLine); i += kLine) __builtin_prefetch(at + i);
}

}  // namespace

// ---- check_indices

// The first index out of range is the one that the error names.
void check_indices(const KernelArgs& args, Launch& launch) {
  const std::int64_t count = args.out.shape.size();
  const auto& p = static_cast<const CheckIndicesParams&>(*args.params);
  const auto bad = std::make_shared<std::atomic<std::int64_t>>(count);
  visit_index("check_indices", args.in[0].dtype, [&]<class I>() {
    const I* const indices = args.in[0].as<const I>();
    launch.stage(ceil_div(count, kIndexChunk), [=, &p, places = args.out.as<std::int32_t>()](std::int64_t chunk) {
      const std::int64_t end = std::min(count, (chunk + 1) * kIndexChunk);
      std::int64_t first = count;
      for (std::int64_t i = end - 1; i >= chunk * kIndexChunk; --i) {
        const auto index = static_cast<std::int64_t>(indices[i]);
        const std::int64_t place = index < 0 && p.from_end ? index + p.length : index;
        if (place < 0 || place >= p.length) first = i;
        places[i] = static_cast<std::int32_t>(place);
      }
      std::int64_t known = bad->load();
      while (first < known && !bad->compare_exchange_weak(known, first)) {
      }
    });
    launch.stage(1, [=, &p](std::int64_t) {
      if (*bad < count) throw IndexError(p.out_of_range(static_cast<std::int64_t>(indices[*bad])));
    });
  });
}

// ---- take

namespace {

// Elements [begin, end) of the result, which is [inner, count, outer].
template <class T>
void take_range(T* y, const T* x, const std::int32_t* places, const AroundAxis& from, std::int64_t count,
                std::int64_t begin, std::int64_t end) {
  const std::int64_t inner = from.inner;
  std::int64_t row = begin / inner, i = begin % inner, o = row / count, j = row % count;
  const T* block = x + o * inner * from.length;
  if (inner == 1) {
    for (std::int64_t at = begin; at < end; j = 0, block += from.length)
      for (const std::int64_t until = std::min(count, j + end - at); j < until; ++j) y[at++] = block[places[j]];
    return;
  }
  for (std::int64_t at = begin; at < end; i = 0) {
    const std::int64_t n = std::min(inner - i, end - at);
    if (j + kAhead < count)
      fetch(block + places[j + kAhead] * inner, inner * static_cast<std::int64_t>(sizeof(T)));
    std::memcpy(y + at, block + places[j] * inner + i, static_cast<std::size_t>(n) * sizeof(T));
    at += n;
    if (++j == count) j = 0, block += inner * from.length;
  }
}

}  // namespace

void take(const KernelArgs& args, Launch& launch) {
  const int axis = static_cast<const TakeParams&>(*args.params).axis;
  const AroundAxis from(args.in[0].shape, axis);
  const std::int64_t size = args.out.shape.size(), count = args.in[1].shape.size();
  visit_any_dtype("take", args.out.dtype, [&]<class T>() {
    const std::int64_t each = kChunkBytes / static_cast<std::int64_t>(sizeof(T));
    launch.stage(ceil_div(size, each), [=, y = args.out.as<T>(), x = args.in[0].as<const T>(),
                                        places = args.in[1].as<const std::int32_t>(),
                                        finished = args.finished](std::int64_t chunk) {
      const std::int64_t begin = chunk * each, end = std::min(size, begin + each);
      take_range(y, x, places, from, count, begin, end);
      if (finished) finished({begin, end - begin});
    });
  });
}

// ---- put_add

namespace {

constexpr std::int64_t kBucketBytes = 128 * 1024;  // of the result: they stay in the cache while values are added
constexpr std::int64_t kMostBuckets = 4096, kMostParts = 256;
constexpr std::int64_t kChunkElements = 1 << 16;

// A row of values, or a value itself if rows are no larger, and the row of the result to which it is added.
struct Entry {
  std::int32_t to, from;
};

// The entries by buckets of neighbouring rows of the result, in each in the order of the indices.
struct Buckets {
  std::int64_t rows = 1;    // of a bucket: a power of 2
  std::int64_t count = 1;
  const Entry* entries = nullptr;      // null: one bucket, with all of them
  const std::int64_t* begin = nullptr; // of each bucket's entries, and the end
  const std::int32_t* values = nullptr;  // if entries hold them: read here in their order

  Buckets(const AroundAxis& to, std::int64_t itemsize) {
    const std::int64_t fit = std::max(kBucketBytes / std::max<std::int64_t>(1, to.inner * itemsize),
                                      ceil_div(to.length, kMostBuckets));
    rows = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(1, fit))));
    count = std::max<std::int64_t>(1, ceil_div(to.length, rows));
  }
};

// A counting sort: parts of the indices are counted, and then put in their places, side by side.
void sort_into(Buckets& buckets, const std::int32_t* places, std::int64_t n, Launch& launch) {
  if (buckets.count == 1) return;
  const std::int64_t each = std::max(kIndexChunk, ceil_div(n, kMostParts)), parts = ceil_div(n, each);
  const std::int64_t count = buckets.count;
  const auto* const values = buckets.values;
  const int shift = std::countr_zero(static_cast<std::uint64_t>(buckets.rows));
  const auto bytes = [](std::int64_t numbers) { return static_cast<std::size_t>(numbers) * sizeof(std::int64_t); };
  auto* const next = static_cast<std::int64_t*>(launch.scratch(bytes(parts * count)));  // by part, then bucket
  auto* const begin = static_cast<std::int64_t*>(launch.scratch(bytes(count + 1)));
  auto* const entries = static_cast<Entry*>(launch.scratch(static_cast<std::size_t>(n) * sizeof(Entry)));
  launch.stage(parts, [=](std::int64_t part) {
    std::int64_t* const counts = next + part * count;
    std::fill_n(counts, count, 0);
    for (std::int64_t j = part * each; j < std::min(n, (part + 1) * each); ++j) ++counts[places[j] >> shift];
  });
  launch.stage(1, [=](std::int64_t) {
    std::int64_t at = 0;
    for (std::int64_t b = 0; b < count; ++b) {
      begin[b] = at;
      for (std::int64_t part = 0; part < parts; ++part) at += std::exchange(next[part * count + b], at);
    }
    begin[count] = at;
  });
  launch.stage(parts, [=](std::int64_t part) {
    std::int64_t* const at = next + part * count;
    for (std::int64_t j = part * each; j < std::min(n, (part + 1) * each); ++j)
      entries[at[places[j] >> shift]++] = {places[j], values ? values[j] : static_cast<std::int32_t>(j)};
  });
  buckets.begin = begin;
  buckets.entries = entries;
}

template <class T> T plus(T a, T b) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) + static_cast<std::make_unsigned_t<T>>(b));
  else return a + b;
}

template <class T> struct PutAdd {
  const T *x, *values;
  T* y;
  const std::int32_t* places;
  AroundAxis to;
  std::int64_t count;  // of indices
  Buckets buckets;

  // Elements [i, i + n) of the rows of bucket b, of block o.
  void run(std::int64_t b, std::int64_t o, std::int64_t i, std::int64_t n) const {
    const std::int64_t low = b * buckets.rows, high = std::min(to.length, low + buckets.rows);
    const std::int64_t start = o * to.length * to.inner + i;
    if (x != y) {
      if (n == to.inner) std::copy_n(x + start + low * n, (high - low) * n, y + start + low * n);
      else
        for (std::int64_t row = low; row < high; ++row)
          std::copy_n(x + start + row * to.inner, n, y + start + row * to.inner);
    }
    const T* const from = values + o * count * to.inner + i;
    T* const target = y + start;
    if (buckets.entries && buckets.values) {
      if constexpr (sizeof(T) == sizeof(std::int32_t))
        for (std::int64_t e = buckets.begin[b]; e < buckets.begin[b + 1]; ++e) {
          const Entry& entry = buckets.entries[e];
          y[entry.to] = plus(y[entry.to], std::bit_cast<T>(entry.from));
        }
    } else if (!buckets.entries)
      for (std::int64_t j = 0; j < count; ++j) add(target + places[j] * to.inner, from + j * to.inner, n);
    else
      for (std::int64_t e = buckets.begin[b]; e < buckets.begin[b + 1]; ++e) {
        if (e + kAhead < buckets.begin[b + 1])
          fetch(from + buckets.entries[e + kAhead].from * to.inner, n * static_cast<std::int64_t>(sizeof(T)));
        add(target + buckets.entries[e].to * to.inner, from + buckets.entries[e].from * to.inner, n);
      }
  }
  static void add(T* row, const T* value, std::int64_t n) {
    for (std::int64_t k = 0; k < n; ++k) row[k] = plus(row[k], value[k]);
  }
};

template <class T> void launch_put_add(const KernelArgs& args, Launch& launch) {
  const AroundAxis to(args.out.shape, static_cast<const TakeParams&>(*args.params).axis);
  const std::int64_t count = args.in[1].shape.size();
  const auto* const places = args.in[1].as<const std::int32_t>();
  if (args.out.shape.size() == 0) return;
  Buckets buckets(to, sizeof(T));
  if (to.inner * to.outer == 1 && sizeof(T) == sizeof(std::int32_t)) buckets.values = args.in[2].as<const std::int32_t>();
  sort_into(buckets, places, count, launch);
  const PutAdd<T> work{args.in[0].as<const T>(), args.in[2].as<const T>(), args.out.as<T>(), places, to, count, buckets};
  const std::int64_t width = std::min(to.inner, kBucketBytes / static_cast<std::int64_t>(sizeof(T)));
  const std::int64_t across = ceil_div(to.inner, width), per_block = across * buckets.count;
  const std::int64_t work_each = (std::min(buckets.rows, to.length) + ceil_div(count, buckets.count)) * width;
  const std::int64_t each = std::clamp<std::int64_t>(kChunkElements / work_each, 1, to.outer);  // blocks of a chunk
  launch.stage(ceil_div(to.outer, each) * per_block, [=, finished = args.finished](std::int64_t chunk) {
    const std::int64_t b = chunk % per_block / across, i = chunk % across * width, n = std::min(width, to.inner - i);
    const std::int64_t first = chunk / per_block * each;
    for (std::int64_t o = first; o < std::min(to.outer, first + each); ++o) {
      work.run(b, o, i, n);
      if (!finished) continue;
      const std::int64_t low = b * buckets.rows, rows = std::min(buckets.rows, to.length - low);
      const std::int64_t begin = (o * to.length + low) * to.inner + i;
      if (n == to.inner) finished({begin, rows * n});
      else finished({begin, n, to.inner, rows});
    }
  });
}

}  // namespace

// Cut into buckets of the result by size alone; each element's additions are in the order of the indices.
void put_add(const KernelArgs& args, Launch& launch) {
  visit_dtype<DType::kInt32, DType::kInt64, DType::kFloat32, DType::kFloat64>("put_add", args.out.dtype,
                                                               [&]<class T>() { launch_put_add<T>(args, launch); });
}

}  // namespace owl::cpu
