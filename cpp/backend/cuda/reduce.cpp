// Cuts a reduction into launches. Adjacent kept axes are merged, and adjacent reduced axes, so that both alternate.
// Either the first axis is reduced, and each result folds contiguous rows: a group of threads computes it. Or it is
// kept, and adjacent results fold adjacent columns: several threads compute each, and adjacent threads read adjacent
// elements. If there are too few results to fill a GPU, long folds are cut into parts that a second launch joins. All
// of this depends only on the shape.
#include <algorithm>

#include "backend/cpu/strided_copy.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"
#include "ops/reduce.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kFullThreads = 1 << 16;  // enough to fill a GPU
constexpr std::int64_t kFullBlocks = 1024;
constexpr std::int64_t kMostPerThread = 32;  // elements; beyond that prefer a larger group
constexpr std::int64_t kLeastPerThread = 4;  // elements, to outweigh joining the threads
constexpr std::int64_t kPart = 4096;         // elements of a row's part, at least
constexpr std::int64_t kPartOfColumn = 16;   // elements for each of its threads, at least
constexpr std::int64_t kFewColumns = 32;
constexpr std::int64_t kMostLanes = 8;    // threads of a column: 32 columns are then adjacent
constexpr std::int64_t kLargestAcc = 24;  // bytes

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t unit) { return ceil_div(a, unit) * unit; }

// Axes to iterate over.
struct Steps {
  int count = 0;
  std::int64_t lengths[kMaxAxes], strides[kMaxAxes];
  std::int64_t size = 1;

  void add(std::int64_t length, std::int64_t stride) {
    lengths[count] = length;
    strides[count++] = stride;
    size *= length;
  }
  void add_to(Slots& slots) const {
    for (int i = 0; i < count; ++i) {
      slots.add(lengths[i]);
      slots.add(strides[i]);
    }
  }
};

struct Layout {
  bool rows;            // the first axis is reduced
  std::int64_t inner;   // its length
  Steps kept, reduced;  // all the other axes
};

Layout analyse(const Shape& shape, unsigned axes) {
  Strides in = shape.dense_strides(), out{};  // over the operand's axes; a reduced axis has stride 0 in the result
  std::int64_t stride = 1;
  for (int i = 0; i < shape.ndim(); ++i) {
    if (axes >> i & 1) continue;
    out[static_cast<std::size_t>(i)] = stride;
    stride *= shape[i];
  }
  Strides* const strides[] = {&in, &out};
  const auto merged = cpu::merge_axes(shape, strides, 2);
  Layout layout{out[0] == 0, merged.lengths[0], {}, {}};
  for (int i = 1; i < merged.count; ++i) {
    const auto k = static_cast<std::size_t>(i);
    (out[k] == 0 ? layout.reduced : layout.kept).add(merged.lengths[i], in[k]);
  }
  return layout;
}

class Reduction {
 public:
  // `correction` is taken from the number of elements that divides.
  Reduction(const char* fold, const Args& args, Emit& emit, double correction = 0)
      : emit_(emit),
        results_(args.out.shape.size()),
        types_(std::string("using T = ") + type_name(args.in[0].dtype) + ";\nusing R = " + type_name(args.out.dtype) +
               ";\n#define OWL_FOLD " + fold + "\n"),
        count_(std::max(static_cast<double>(args.in[0].shape.size()) / static_cast<double>(results_) - correction,
                        0.0)) {}

  void add_launches(const Shape& shape, unsigned axes) {
    if (shape.size() == 0) return add_nothing();
    at_ = analyse(shape, axes);
    if (at_.rows)
      add_rows();
    else
      add_columns();
  }

 private:
  // The number of adjacent columns of a block, and of threads for each.
  struct Block {
    std::int64_t across, lanes;
  };
  Block block_of_columns(std::int64_t length) const {
    if (results_ <= kFewColumns)
      return {results_, std::clamp<std::int64_t>(length / kLeastPerThread, 1, kBlock / results_)};
    std::int64_t lanes = 1;
    while (lanes < kMostLanes && length >= 2 * kLeastPerThread * lanes &&
           (length > kMostPerThread * lanes || results_ * lanes < kFullThreads))
      lanes *= 2;
    return {std::min(results_, kBlock / lanes), lanes};
  }

  void add_nothing() {
    Slots slots;
    slots.add(results_);
    slots.add(count_);
    launch("owl_fold_nothing", "#define OWL_NOTHING\n", blocks_for(results_), slots, false, true);
  }

  void add_rows() {
    const std::int64_t length = at_.inner * at_.reduced.size;
    std::int64_t group = 1;
    while (group < kBlock && (length > kMostPerThread * group || (group < 8 && length >= 2 * group) ||
                              (length > kLeastPerThread * group && results_ * group < kFullThreads)))
      group *= 2;
    std::int64_t parts = 1;
    if (group == kBlock && results_ < kFullBlocks && length >= 2 * kPart)
      parts = std::min(ceil_div(length, kPart), ceil_div(kFullBlocks, results_));
    const std::int64_t part = round_up(ceil_div(length, parts), kBlock);
    parts = ceil_div(length, part);

    Slots slots;
    slots.add(partial(parts));
    slots.add(results_);
    slots.add(at_.inner);
    slots.add(length);
    slots.add(group);
    slots.add(parts);
    slots.add(part);
    launch_fold("owl_fold_rows", "#define OWL_ROWS\n", ceil_div(results_, kBlock / group) * parts, parts, slots);
  }

  void add_columns() {
    const std::int64_t length = at_.reduced.size;
    const auto [across, lanes] = block_of_columns(length);
    const std::int64_t beside = ceil_div(results_, across);
    std::int64_t parts = 1;
    if (beside < kFullBlocks && length >= 4 * kPartOfColumn * lanes)
      parts = std::min(ceil_div(length, kPartOfColumn * lanes), ceil_div(kFullBlocks, beside));
    const std::int64_t part = round_up(ceil_div(length, parts), lanes);
    parts = ceil_div(length, part);

    Slots slots;
    slots.add(partial(parts));
    slots.add(results_);
    slots.add(at_.inner);
    slots.add(length);
    slots.add(across);
    slots.add(lanes);
    slots.add(beside);
    slots.add(part);
    launch_fold("owl_fold_columns", "#define OWL_COLUMNS\n", beside * parts, parts, slots);
  }

  const void* partial(std::int64_t parts) {
    if (parts > 1) partial_ = emit_.scratch(static_cast<std::size_t>(parts * results_ * kLargestAcc));
    return partial_;
  }

  // Adds the slots with which every fold ends.
  void launch_fold(const char* name, const char* which, std::int64_t blocks, std::int64_t parts, Slots& slots) {
    slots.add(count_);
    at_.kept.add_to(slots);
    at_.reduced.add_to(slots);
    const std::string steps = "constexpr int kKept = " + std::to_string(at_.kept.count) +
                              ", kReduced = " + std::to_string(at_.reduced.count) + ";\n";
    launch(name, which + steps + (parts > 1 ? "#define OWL_CUT\n" : ""), blocks, slots, true, parts == 1);
    if (parts == 1) return;
    const auto [across, lanes] = block_of_columns(parts);
    Slots join;
    join.add(static_cast<const void*>(partial_));
    join.add(results_);
    join.add(parts);
    join.add(across);
    join.add(lanes);
    join.add(count_);
    launch("owl_join_parts", "#define OWL_JOIN\n", ceil_div(results_, across), join, false, true);
  }

  void launch(const char* name, const std::string& which, std::int64_t blocks, const Slots& slots, bool loads,
              bool stores) {
    emit_.launch({name, text::reduce, types_ + which}, blocks, slots, loads, stores);
  }

  Emit& emit_;
  const std::int64_t results_;
  const std::string types_;
  const double count_;  // elements of each result
  Layout at_{};
  void* partial_ = nullptr;
};

void reduce(const char* fold, const Args& args, Emit& emit) {
  const auto& p = static_cast<const ReduceParams&>(*args.params);
  Reduction(fold, args, emit).add_launches(args.in[0].shape, p.all ? ~0u : p.axes);
}

}  // namespace

void sum(const Args& args, Emit& emit) { reduce("Sum", args, emit); }
void moments(const Args& args, Emit& emit) {
  const auto& p = static_cast<const MomentsParams&>(*args.params);
  const struct {
    const char* fold;
    double correction;
  } folds[] = {{"Mean", 0}, {"Variance", p.correction}};
  for (std::size_t i = 0; i < 2; ++i) {
    if (!args.results[i].data) continue;
    Args one = args;
    one.out = args.results[i];
    emit.write_to(one);
    Reduction(folds[i].fold, one, emit, folds[i].correction).add_launches(args.in[0].shape, p.all ? ~0u : p.axes);
    emit.write_to(args);
  }
}
void prod(const Args& args, Emit& emit) { reduce("Prod", args, emit); }
void mean(const Args& args, Emit& emit) { reduce("Mean", args, emit); }
void max(const Args& args, Emit& emit) { reduce("Max", args, emit); }
void min(const Args& args, Emit& emit) { reduce("Min", args, emit); }
void argmax(const Args& args, Emit& emit) { reduce("ArgMax", args, emit); }
void argmin(const Args& args, Emit& emit) { reduce("ArgMin", args, emit); }
void count_zero(const Args& args, Emit& emit) { reduce("CountZero", args, emit); }

// err is [W, H, C, N].
void conv_back_bias(const Args& args, Emit& emit) {
  Reduction("Sum", args, emit).add_launches(args.in[0].shape, 0b1011);
}

}  // namespace owl::cuda
