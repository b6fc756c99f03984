// Cuts a reduction into chunks. The operand is dense; adjacent kept axes are merged, and adjacent reduced axes, so that
// both alternate. Then either the first axis is reduced (each result folds contiguous rows) or it is kept (each block
// of results folds rows of vectors). Large folds are cut into parts of a fixed size, whose partial results a second
// stage joins in order: the cuts depend only on the shape.
#include "backend/cpu/reduce.h"

#include <algorithm>
#include <memory>

#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "base/visit_dtype.h"
#include "ops/reduce.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kPart = 1 << 15;     // elements folded, or computed for a fold, at a time: half of an L2 cache
constexpr std::int64_t kChunk = 1 << 17;    // elements of the parts that share a chunk
constexpr std::int64_t kShortRow = 256;     // shorter rows are not computed separately
constexpr std::int64_t kSegment = 1 << 15;  // of a contiguous row
constexpr std::int64_t kColumns = 1024;     // adjacent accumulators
constexpr std::int64_t kJoin = 4096;        // results joined in one chunk
constexpr std::int64_t kLargestAcc = 24;    // bytes

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// A set of axes to iterate over.
struct Steps {
  int count = 0;
  std::int64_t lengths[kMaxAxes], strides[kMaxAxes];
  std::int64_t size = 1;

  void add(std::int64_t length, std::int64_t stride) {
    lengths[count] = length;
    strides[count++] = stride;
    size *= length;
  }
  std::int64_t offset(std::int64_t at) const {
    std::int64_t result = 0;
    for (int i = 0; i < count - 1; ++i) {
      result += at % lengths[i] * strides[i];
      at /= lengths[i];
    }
    return count == 0 ? 0 : result + at * strides[count - 1];
  }
};

struct Layout {
  bool rows;           // the first axis is reduced
  std::int64_t inner;  // its length
  Steps kept, reduced; // all the other axes

  // Whether adjacent results fold adjacent rows.
  bool has_row_after_row() const {
    return rows && reduced.size == 1 && (kept.count == 0 || (kept.count == 1 && kept.strides[0] == inner));
  }
};

Layout analyse(const Shape& shape, unsigned axes) {
  Layout layout{true, 1, {}, {}};
  std::int64_t stride = 1, length = 1, start = 1;
  bool reduced = false, first = true, any = false;
  const auto flush = [&] {
    if (!any) return;
    if (first) {
      layout.rows = reduced;
      layout.inner = length;
      first = false;
    } else {
      (reduced ? layout.reduced : layout.kept).add(length, start);
    }
  };
  for (int i = 0; i < shape.ndim(); ++i) {
    const bool goes = axes >> i & 1;
    if (shape[i] != 1) {
      if (any && goes == reduced) {
        length *= shape[i];
      } else {
        flush();
        any = true;
        reduced = goes;
        length = shape[i];
        start = stride;
      }
    }
    stride *= shape[i];
  }
  flush();
  return layout;
}

struct Reduction {
  const Fold& fold;
  Layout at;
  const char* in;
  char* out;
  std::int64_t in_item, out_item;
  double count;               // elements of each result
  ReadRanges read;            // computes elements; if empty they are in memory
  FinishRanges finished;      // runs the program `after` on results
  std::int64_t parts = 1;     // of each fold
  std::int64_t per_part = 0;  // units (segments or vectors) in a part
  char* partial = nullptr;    // [part][result]
  // Of a fold with two results. `out` may be null then, or this one.
  const Fold* second = nullptr;
  char* second_out = nullptr;
  double second_count = 0;

  void allocate_partial(std::int64_t results, Launch& launch) {
    partial = static_cast<char*>(launch.scratch(static_cast<std::size_t>(parts * results * fold.size)));
  }

  // The results [first, first + n), from complete accumulators.
  void finish(std::int64_t first, const void* acc, std::int64_t n) const {
    if (out) fold.finish(out + first * out_item, acc, n, count);
    if (second_out) second->finish(second_out + first * out_item, acc, n, second_count);
    if (finished) finished({first, n});
  }

  const void* elements(std::int64_t begin, std::int64_t n) const {
    return read ? read({begin, n}) : in + begin * in_item;
  }

  // Rows: folds units [begin, end) of its segments into result `o`.
  void fold_rows(void* acc, std::int64_t o, std::int64_t begin, std::int64_t end) const {
    const std::int64_t segments = ceil_div(at.inner, kSegment), base = at.kept.offset(o);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t from = unit % segments * kSegment, n = std::min(kSegment, at.inner - from);
      fold.row(acc, elements(base + at.reduced.offset(unit / segments) + from, n), n);
    }
  }

  // Vectors: folds vectors [begin, end) into results [first, first + n) of kept row `o`.
  void fold_columns(void* acc, std::int64_t o, std::int64_t first, std::int64_t n, std::int64_t begin,
                    std::int64_t end) const {
    const std::int64_t base = at.kept.offset(o) + first;
    if (at.reduced.count == 0) return fold.columns(acc, elements(base, n), 0, end - begin, n);
    const std::int64_t length = at.reduced.lengths[0], stride = at.reduced.strides[0];
    while (begin < end) {  // along the first reduced axis at once
      const std::int64_t rows = std::min(end - begin, length - begin % length), from = base + at.reduced.offset(begin);
      if (read) fold.columns(acc, read({from, n, stride, rows}), n, rows, n);
      else fold.columns(acc, in + from * in_item, stride, rows, n);
      begin += rows;
    }
  }
};

void add_join_stage(std::shared_ptr<const Reduction> r, std::int64_t results, Launch& launch) {
  launch.stage(ceil_div(results, kJoin), [r, results](std::int64_t chunk) {
    const std::int64_t first = chunk * kJoin, n = std::min(kJoin, results - first);
    char* acc = r->partial + first * r->fold.size;
    for (std::int64_t p = 1; p < r->parts; ++p) r->fold.combine(acc, acc + p * results * r->fold.size, n);
    r->finish(first, acc, n);
  });
}

void add_row_stages(std::shared_ptr<Reduction> r, Launch& launch) {
  const std::int64_t results = r->at.kept.size;
  const std::int64_t units = ceil_div(r->at.inner, kSegment) * r->at.reduced.size;
  const std::int64_t unit_size = std::min(r->at.inner, kSegment);
  r->per_part = std::max(std::int64_t{1}, kPart / unit_size);
  r->parts = ceil_div(units, r->per_part);
  if (r->parts > 1) r->allocate_partial(results, launch);
  // Small folds share a chunk.
  const std::int64_t jobs = results * r->parts;
  const std::int64_t together = std::max(std::int64_t{1}, kChunk / (unit_size * std::min(units, r->per_part) + 16));
  if (r->parts == 1) {
    constexpr std::int64_t kBatch = 64;
    const bool in_a_row = r->at.has_row_after_row();
    const std::int64_t batch = in_a_row ? std::clamp<std::int64_t>(kPart / r->at.inner, 1, kBatch) : kBatch;
    launch.stage(ceil_div(results, together), [r, results, units, together, in_a_row, batch](std::int64_t chunk) {
      alignas(16) char acc[kBatch * kLargestAcc];
      const std::int64_t last = std::min(results, (chunk + 1) * together), inner = r->at.inner;
      for (std::int64_t first = chunk * together; first < last; first += batch) {
        const std::int64_t n = std::min(batch, last - first);
        r->fold.init(acc, n);
        if (in_a_row) {
          const auto* rows = static_cast<const char*>(r->elements(first * inner, n * inner));
          for (std::int64_t i = 0; i < n; ++i) r->fold.row(acc + i * r->fold.size, rows + i * inner * r->in_item, inner);
        } else {
          for (std::int64_t i = 0; i < n; ++i) r->fold_rows(acc + i * r->fold.size, first + i, 0, units);
        }
        r->finish(first, acc, n);
      }
    });
    return;
  }
  launch.stage(ceil_div(jobs, together), [r, results, units, jobs, together](std::int64_t chunk) {
    for (std::int64_t job = chunk * together; job < std::min(jobs, (chunk + 1) * together); ++job) {
      const std::int64_t o = job % results, p = job / results;
      char* acc = r->partial + job * r->fold.size;
      r->fold.init(acc, 1);
      r->fold_rows(acc, o, p * r->per_part, std::min(units, (p + 1) * r->per_part));
    }
  });
  add_join_stage(r, results, launch);
}

void add_column_stages(std::shared_ptr<Reduction> r, Launch& launch) {
  const std::int64_t inner = r->at.inner, results = inner * r->at.kept.size, units = r->at.reduced.size;
  const std::int64_t block = std::min(inner, kColumns), blocks = ceil_div(inner, block);
  r->per_part = std::max(std::int64_t{1}, kPart / block);
  r->parts = ceil_div(units, r->per_part);
  if (r->parts > 1) r->allocate_partial(results, launch);
  const std::int64_t jobs = blocks * r->at.kept.size * r->parts;
  const std::int64_t together = std::max(std::int64_t{1}, kChunk / (block * std::min(units, r->per_part) + 16));
  launch.stage(ceil_div(jobs, together), [=](std::int64_t chunk) {
    alignas(64) char local[kColumns * kLargestAcc];
    for (std::int64_t job = chunk * together; job < std::min(jobs, (chunk + 1) * together); ++job) {
      const std::int64_t first = job % blocks * block, n = std::min(block, inner - first);
      const std::int64_t o = job / blocks % r->at.kept.size, p = job / blocks / r->at.kept.size;
      const std::int64_t result = o * inner + first;
      r->fold.init(local, n);
      r->fold_columns(local, o, first, n, p * r->per_part, std::min(units, (p + 1) * r->per_part));
      if (r->parts == 1) {
        r->finish(result, local, n);
      } else {
        char* to = r->partial + (p * results + result) * r->fold.size;
        std::copy_n(local, n * r->fold.size, to);
      }
    }
  });
  if (r->parts > 1) add_join_stage(r, results, launch);
}

unsigned axes_of(const Params* params) {
  const auto& p = *static_cast<const ReduceParams*>(params);
  return p.all ? ~0u : p.axes;
}

void add_stages(std::shared_ptr<Reduction> r, Launch& launch) {
  if (r->at.rows) add_row_stages(std::move(r), launch);
  else add_column_stages(std::move(r), launch);
}

void reduce(ReduceKind kind, const KernelArgs& args, Launch& launch) {
  const ArrayRef& in = args.in[0];
  if (args.out.shape.size() == 0) return;
  const Fold& fold = best_reduce_table().folds[kind][static_cast<int>(in.dtype)];
  const double count = static_cast<double>(in.shape.size()) / static_cast<double>(args.out.shape.size());
  if (in.shape.size() == 0) {  // no result has elements
    launch.stage(1, [&fold, out = args.out, count, finished = args.finished](std::int64_t) {
      for (std::int64_t i = 0; i < out.shape.size(); ++i) {
        alignas(16) char acc[16];
        fold.init(acc, 1);
        fold.finish(out.as<char>() + i * static_cast<std::int64_t>(itemsize(out.dtype)), acc, 1, count);
      }
      if (finished) finished({0, out.shape.size()});
    });
    return;
  }
  auto r = std::make_shared<Reduction>(Reduction{fold, analyse(in.shape, axes_of(args.params)), in.as<char>(),
                                                 args.out.as<char>(), static_cast<std::int64_t>(itemsize(in.dtype)),
                                                 static_cast<std::int64_t>(itemsize(args.out.dtype)), count,
                                                 args.read, args.finished});
  add_stages(std::move(r), launch);
}

// One merged axis is reduced: argmax takes one axis, or all of them.
void arg_reduce(bool largest, const KernelArgs& args, Launch& launch) {
  const ArrayRef& in = args.in[0];
  if (args.out.shape.size() == 0) return;
  const ArgFold& fold = best_reduce_table().arg_folds[largest ? 0 : 1][static_cast<int>(in.dtype)];
  const auto item = static_cast<std::int64_t>(itemsize(in.dtype));
  auto* out = args.out.as<std::int32_t>();
  const char* x = in.as<char>();
  const Layout at = analyse(in.shape, axes_of(args.params));

  if (!at.rows) {
    const std::int64_t rows = at.reduced.size, stride = at.reduced.count ? at.reduced.strides[0] : 0;
    const std::int64_t block = std::min(at.inner, kArgColumns), blocks = ceil_div(at.inner, block);
    const std::int64_t jobs = blocks * at.kept.size, together = std::max(std::int64_t{1}, kChunk / (block * rows + 16));
    launch.stage(ceil_div(jobs, together), [=, &fold, read = args.read, finished = args.finished](std::int64_t chunk) {
      for (std::int64_t job = chunk * together; job < std::min(jobs, (chunk + 1) * together); ++job) {
        const std::int64_t first = job % blocks * block, o = job / blocks, n = std::min(block, at.inner - first);
        const std::int64_t from = at.kept.offset(o) + first;
        auto* places = out + o * at.inner + first;
        if (read) fold.columns(places, read({from, n, stride, rows}), n, rows, n);
        else fold.columns(places, x + from * item, stride, rows, n);
        if (finished) finished({o * at.inner + first, n});
      }
    });
    return;
  }

  const std::int64_t results = at.kept.size, parts = ceil_div(at.inner, kPart);
  if (parts == 1) {
    const std::int64_t together = std::max(std::int64_t{1}, kPart / (at.inner + 16));
    const bool in_a_row = at.has_row_after_row();
    launch.stage(ceil_div(results, together), [=, &fold, read = args.read, finished = args.finished](std::int64_t chunk) {
      const std::int64_t first = chunk * together, n = std::min(results - first, together);
      if (read) {
        fold.rows(out + first, read({first * at.inner, n * at.inner}), at.inner, n);
      } else if (in_a_row) {
        fold.rows(out + first, x + first * at.inner * item, at.inner, n);
      } else {
        for (std::int64_t o = first; o < first + n; ++o) fold.rows(out + o, x + at.kept.offset(o) * item, at.inner, 1);
      }
      if (finished) finished({first, n});
    });
    return;
  }
  auto* places = static_cast<std::int64_t*>(launch.scratch(static_cast<std::size_t>(parts * results) * 8));
  launch.stage(parts * results, [=, &fold](std::int64_t job) {
    const std::int64_t o = job / parts, from = job % parts * kPart;
    places[job] = from + fold.row(x + (at.kept.offset(o) + from) * item, std::min(kPart, at.inner - from));
  });
  launch.stage(1, [=, &fold, finished = args.finished](std::int64_t) {
    for (std::int64_t o = 0; o < results; ++o) {
      const char* base = x + at.kept.offset(o) * item;
      std::int64_t best = places[o * parts];
      for (std::int64_t p = 1; p < parts; ++p) {
        const std::int64_t other = places[o * parts + p];
        if (fold.better(base + best * item, base + other * item)) best = other;
      }
      out[o] = static_cast<std::int32_t>(best);
    }
    if (finished) finished({0, results});
  });
}

}  // namespace

bool reduces_ranges(const Shape& shape, const Params* params) {
  if (shape.size() == 0) return false;
  const Layout at = analyse(shape, axes_of(params));
  return at.inner >= kShortRow || at.has_row_after_row() ||
         (!at.rows && at.reduced.count > 0 && at.reduced.strides[0] == at.inner);
}

// As above, but parts are not joined, so a fold must fit into one.
bool arg_reduces_ranges(const Shape& shape, const Params* params) {
  if (shape.size() == 0) return false;
  const Layout at = analyse(shape, axes_of(params));
  if (at.rows) return at.inner <= kPart && at.has_row_after_row();
  return (at.inner >= kShortRow || (at.reduced.count > 0 && at.reduced.strides[0] == at.inner)) &&
         std::min(at.inner, kArgColumns) * at.reduced.size <= kPart;
}

void sum(const KernelArgs& args, Launch& launch) { reduce(kSum, args, launch); }
void moments(const KernelArgs& args, Launch& launch) {
  const ArrayRef &in = args.in[0], &mean = args.results[0], &var = args.results[1];
  const Shape& shape = mean.data ? mean.shape : var.shape;
  if (shape.size() == 0) return;
  const auto& p = static_cast<const MomentsParams&>(*args.params);
  visit_float("moments", in.dtype, [&]<class T>() {
    const auto& k = nn_table().kernels<T>();
    const double count = static_cast<double>(in.shape.size()) / static_cast<double>(shape.size());
    auto r = std::make_shared<Reduction>(
        Reduction{k.mean, {}, in.as<char>(), mean.as<char>(), sizeof(T), sizeof(T), count, args.read, nullptr});
    r->second = &k.variance;
    r->second_out = var.as<char>();
    r->second_count = std::max(count - p.correction, 0.0);
    if (in.shape.size() > 0) {
      r->at = analyse(in.shape, axes_of(&p));
      return add_stages(std::move(r), launch);
    }
    launch.stage(1, [r, n = shape.size()](std::int64_t) {
      alignas(16) char acc[kLargestAcc];
      r->fold.init(acc, 1);
      for (std::int64_t i = 0; i < n; ++i) r->finish(i, acc, 1);
    });
  });
}
void prod(const KernelArgs& args, Launch& launch) { reduce(kProd, args, launch); }
void mean(const KernelArgs& args, Launch& launch) { reduce(kMean, args, launch); }
void max(const KernelArgs& args, Launch& launch) { reduce(kMax, args, launch); }
void min(const KernelArgs& args, Launch& launch) { reduce(kMin, args, launch); }
void count_zero(const KernelArgs& args, Launch& launch) { reduce(kCountZero, args, launch); }
void argmax(const KernelArgs& args, Launch& launch) { arg_reduce(true, args, launch); }
void argmin(const KernelArgs& args, Launch& launch) { arg_reduce(false, args, launch); }

}  // namespace owl::cpu
