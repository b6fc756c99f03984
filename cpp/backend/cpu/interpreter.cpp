#include "backend/cpu/interpreter.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "base/visit_dtype.h"
#include "ops/elementwise.h"
#include "owl/error.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kCacheBytes = 24 * 1024;  // of the L1 cache, for the tiles in use
// Short enough that out-of-order execution reaches the next tile's inputs while it computes this one, so that the
// processor reads memory continuously instead of in bursts.
constexpr std::int64_t kTileBytes = 512;
// A single instruction has nothing to interleave. Its operands that are filled registers limit the tile.
constexpr std::int64_t kSingleTileBytes = 2048, kSingleTileOfRowsBytes = 1024;
constexpr std::int64_t kUnlimited = std::int64_t{1} << 40;  // bytes: beyond any row
constexpr std::int64_t kMinTile = 64, kMaxPeriod = 4096;    // elements
// The shortest rows to run one by one where that saves gathering: if they end in a part of a block, that part costs as
// much as some blocks. And where it only saves registers.
constexpr std::int64_t kShortRow = 64, kShortOddRow = 256, kLongRow = 1024;
constexpr std::int64_t kGrain = 128, kLongestGrain = 1 << 14;

TileFn find_function(const Program::Instruction& i) {
  return i.code == kCastCode ? cast_function(i.dtype, i.result) : tile_function(i.code, i.dtype);
}

thread_local Arena arena;

// Stores a constant in its own type.
void store_constant(void* to, const Program::Constant& c) {
  visit_any_dtype("a constant", c.dtype, [&]<class T>() {
    if constexpr (std::is_same_v<T, std::int64_t>) *static_cast<T*>(to) = c.integer;
    else *static_cast<T*>(to) = elementwise_ops::convert<double, T>(c.value);
  });
}

}  // namespace

// One call of run().
struct Interpreter::Run {
  char* memory;  // the arena's
  char* last;    // where the last output's element 0 would be
  void* where[kMaxValues];
  const char* from[kMaxInputs];  // the next element of an input that is copied for each tile
};

Arena::~Arena() { std::free(data_); }

char* Arena::at_least(std::size_t bytes) {
  if (bytes > size_) {
    std::free(data_);
    size_ = 0;
    bytes = (bytes + 65535) & ~std::size_t{65535};
    data_ = static_cast<char*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    size_ = bytes;
  }
  return data_;
}

Interpreter::Interpreter(const Program& program, const void* const* inputs, void* const* outputs, NanWatch* watch)
    : program_(program), watch_(watch), input_count_(static_cast<int>(program.inputs.size())),
      constant_count_(static_cast<int>(program.constants.size())),
      value_count_(input_count_ + constant_count_ + static_cast<int>(program.instructions.size())),
      output_count_(static_cast<int>(program.outputs.size())), size_(program.shape.size()) {
  if (input_count_ > kMaxInputs || output_count_ > kMaxOutputs || value_count_ > kMaxValues ||
      program.instructions.size() > kMaxInstructions)
    throw Error("fused program: " + std::to_string(program.instructions.size()) + " instructions over " +
                std::to_string(input_count_) + " inputs are more than the interpreter takes");
  std::copy_n(inputs, input_count_, in_);
  std::copy_n(outputs, output_count_, out_);
  const auto widen = [this](DType t) { item_ = std::max(item_, static_cast<std::int64_t>(itemsize(t))); };
  for (const auto& i : program.inputs) widen(i.dtype);
  for (const auto& c : program.constants) widen(c.dtype);
  for (const auto& i : program.instructions) widen(i.result);
  classify_inputs();
  choose_steps();
  place_results();
}

std::int64_t Interpreter::grain() const { return row_ < size_ && row_ <= kLongestGrain ? row_ : kGrain; }

void Interpreter::classify_inputs() {
  Strides* strided[kMaxInputs];
  int strided_count = 0;
  for (int i = 0; i < input_count_; ++i) {
    const auto& from = program_.inputs[i];
    Input& to = input_[i];
    to.item = static_cast<std::uint8_t>(itemsize(from.dtype));
    to.keep = to.by_row = false;
    to.source = Source::kDirect;
    if (from.dense) continue;
    to.strides = from.strides;
    strided[strided_count++] = &to.strides;
  }
  row_ = std::max(std::int64_t{1}, size_);
  if (strided_count == 0) return;
  // Only the strided inputs limit merging: dense ones allow any.
  axes_ = merge_axes(program_.shape, strided, strided_count);
  bool gathers = false;
  for (int i = 0; i < input_count_; ++i) {
    if (program_.inputs[i].dense) continue;
    classify(input_[i]);
    gathers = gathers || input_[i].source == Source::kStrided;
  }
  const std::int64_t length = axes_.lengths[0];
  if (axes_.count > 1 && length < (!gathers ? kLongRow : length % kBlock == 0 ? kShortRow : kShortOddRow)) return;
  row_ = length;
  for (int i = 0; i < input_count_; ++i) {
    Input& in = input_[i];
    if (program_.inputs[i].dense || in.source == Source::kScalar) continue;
    in.by_row = true;
    in.source = in.strides[0] == 0 ? Source::kScalar : in.strides[0] == 1 ? Source::kDirect : Source::kStrided;
  }
}

// A strided input's source, if the program does not run row by row.
void Interpreter::classify(Input& in) const {
  int repeated = axes_.count;  // the first of the trailing axes whose strides are all 0
  while (repeated > 0 && in.strides[repeated - 1] == 0) --repeated;
  std::int64_t period = 1;
  bool dense = true;
  for (int k = 0; k < repeated; ++k) {
    dense = dense && in.strides[k] == period;
    period *= axes_.lengths[k];
  }
  in.period = period;
  in.source = repeated == 0 ? Source::kScalar
              : dense && repeated == axes_.count ? Source::kDirect
              : dense && period <= kMaxPeriod ? Source::kPeriodic
                                              : Source::kStrided;
}

// A step is an instruction, or two if the first one's result has no other use and a kernel exists for the pair.
void Interpreter::choose_steps() {
  const int first_result = input_count_ + constant_count_, instructions = value_count_ - first_result;
  std::int16_t uses[kMaxValues];
  std::fill_n(uses, value_count_, std::int16_t{0});
  for (const auto& i : program_.instructions)
    for (int k = 0; k < i.arity; ++k) ++uses[i.in[k]];
  for (const auto& o : program_.outputs) ++uses[o.value];

  bool joined[kMaxInstructions];
  for (int s = 0; s < instructions; ++s) {
    const auto& second = program_.instructions[s];
    Step& step = step_[s];
    step = {find_function(second), static_cast<std::uint16_t>(first_result + s), second.arity,
            {second.in[0], second.in[1], second.in[2]}};
    if (step.fn == nullptr)
      throw Error(std::string(elementwise_ops::All::infos[second.code].name) + ": no CPU loop for " +
                  std::string(name(second.dtype)));
    joined[s] = false;
    for (int k = 0; k < 2 && second.arity == 2 && !watch_; ++k) {
      const int f = second.in[k] - first_result;
      if (f < 0 || uses[second.in[k]] != 1 || step_[f].arity != 2) continue;
      const auto& first = program_.instructions[f];
      const auto fn = best_tile_table().pair(first.code, second.code, k == 1, static_cast<int>(second.dtype));
      if (fn == nullptr) continue;
      step = {fn, step.dst, 3, {first.in[0], first.in[1], second.in[1 - k]}};
      joined[f] = true;
      break;
    }
  }
  step_count_ = 0;
  for (int s = 0; s < instructions; ++s)
    if (!joined[s]) step_[step_count_++] = step_[s];
}

// Allocates registers by liveness: a result takes the register of an operand that dies at this step, or a free one. An
// output is written to its memory directly, unless an input that is still needed is in the same memory.
void Interpreter::place_results() {
  const int first_result = input_count_ + constant_count_;
  constexpr std::int16_t kNever = -1;
  const std::int16_t kEnd = static_cast<std::int16_t>(step_count_);
  std::int16_t made_by[kMaxValues], last_use[kMaxValues];  // steps
  std::fill_n(last_use, value_count_, kNever);
  std::fill_n(direct_output_, value_count_, std::int16_t{-1});
  for (int s = 0; s < step_count_; ++s) {
    made_by[step_[s].dst] = static_cast<std::int16_t>(s);
    for (int k = 0; k < step_[s].arity; ++k) last_use[step_[s].in[k]] = static_cast<std::int16_t>(s);
  }
  for (int o = 0; o < output_count_; ++o) {
    const int v = program_.outputs[o].value;
    for (int i = 0; i < input_count_; ++i) {
      if (in_[i] != out_[o] || i == v) continue;
      bool stored = false;  // another output still needs the input
      for (int p = 0; p < output_count_; ++p) stored = stored || program_.outputs[p].value == i;
      if (stored) input_[i].keep = true;
    }
    bool direct = v >= first_result && direct_output_[v] < 0;
    for (int i = 0; i < input_count_ && direct; ++i)
      direct = in_[i] != out_[o] || input_[i].keep || last_use[i] <= made_by[v];
    if (direct) direct_output_[v] = static_cast<std::int16_t>(o);
    else store_[store_count_++] = {static_cast<std::uint16_t>(v), static_cast<std::uint16_t>(o)};
  }
  for (int k = 0; k < store_count_; ++k) last_use[store_[k].value] = kEnd;

  // Assign register numbers first; the registers' size depends on their number.
  std::int16_t free_registers[kMaxInstructions], register_of[kMaxValues];
  int free_count = 0, registers = 0;
  for (int s = 0; s < step_count_; ++s) {
    Step& step = step_[s];
    const int v = step.dst;
    const bool needs = direct_output_[v] < 0;
    // A result may replace an operand of its own size that dies here; the others are freed after the result has its
    // register.
    int later[3], later_count = 0;
    const auto item = itemsize(program_.instructions[v - first_result].result);
    for (int k = 0; k < step.arity; ++k) {
      const int x = step.in[k];
      if (x < first_result || last_use[x] != s || register_of[x] < 0) continue;
      const bool same = itemsize(program_.instructions[x - first_result].result) == item;
      if (same && !watch_) free_registers[free_count++] = register_of[x];
      else later[later_count++] = register_of[x];
      register_of[x] = -1;  // an operand may occur twice
    }
    register_of[v] = -1;
    if (needs) {
      register_of[v] = free_count > 0 ? free_registers[--free_count] : static_cast<std::int16_t>(registers++);
      offset_[v] = register_of[v];
    }
    for (int k = 0; k < later_count; ++k) free_registers[free_count++] = static_cast<std::int16_t>(later[k]);
    if (needs && last_use[v] == kNever) free_registers[free_count++] = register_of[v];

    for (int k = step.arity; k < 3; ++k) step.in[k] = step.in[0];  // never read, but its address is computed
  }

  choose_tile(registers);
}

std::int64_t Interpreter::wanted_tile_bytes(int buffers) const {
  if (step_count_ > 1 || store_count_ > 0 || watch_) return kTileBytes;
  if (buffers == 0) return kUnlimited;
  for (int i = 0; i < input_count_; ++i)
    if (input_[i].source == Source::kScalar && input_[i].by_row) return kSingleTileOfRowsBytes;
  return kSingleTileBytes;
}

// The tile's length, and where its buffers are in the arena.
void Interpreter::choose_tile(int registers) {
  const int first_result = input_count_ + constant_count_;
  int buffers = registers + constant_count_, streams = output_count_;
  for (int i = 0; i < input_count_; ++i) {
    if (input_[i].source == Source::kDirect && !input_[i].keep) ++streams;
    else buffers += input_[i].source == Source::kPeriodic ? 2 : 1;
  }
  const std::int64_t fitting = buffers == 0 ? kUnlimited : kCacheBytes / ((buffers + streams) * item_) / 64 * 64;
  tile_ = std::max(kMinTile, std::min(fitting, wanted_tile_bytes(buffers) / item_));
  tile_ = std::min(tile_, (row_ + kBlock - 1) / kBlock * kBlock);

  const std::int64_t bytes = (tile_ * item_ + 63) & ~std::int64_t{63};
  for (int s = 0; s < step_count_; ++s)
    if (direct_output_[step_[s].dst] < 0) offset_[step_[s].dst] *= bytes;
  arena_bytes_ = registers * bytes;
  for (int c = 0; c < constant_count_; ++c) offset_[input_count_ + c] = reserve(tile_);
  for (int i = 0; i < input_count_; ++i) {
    Input& in = input_[i];
    const bool direct = in.source == Source::kDirect && !in.keep;
    in.offset = reserve(direct ? kBlock : in.source == Source::kPeriodic ? in.period + tile_ : tile_);
    offset_[i] = in.offset;
    if (direct) moving_[moving_count_++] = {static_cast<std::uint16_t>(i), in.item};
    else if (in.source != Source::kScalar) loaded_[loaded_count_++] = static_cast<std::uint8_t>(i);
  }
  for (int v = first_result; v < value_count_; ++v) {
    const int o = direct_output_[v];
    if (o < 0) continue;
    offset_[v] = reserve(kBlock);
    moving_[moving_count_++] = {static_cast<std::uint16_t>(v),
                                static_cast<std::uint8_t>(itemsize(program_.outputs[o].dtype))};
  }
}

// Prepares the values that are the same for all tiles.
void Interpreter::load_fixed(Run& run) const {
  const auto fill = best_tile_table().fill;
  char* const memory = run.memory;
  void** const where = run.where;
  for (int v = 0; v < input_count_ + constant_count_; ++v) where[v] = memory + offset_[v];
  for (int s = 0; s < step_count_; ++s) where[step_[s].dst] = memory + offset_[step_[s].dst];
  for (int c = 0; c < constant_count_; ++c) {
    alignas(8) char value[8];
    store_constant(value, program_.constants[c]);
    fill(where[input_count_ + c], value, static_cast<std::int64_t>(itemsize(program_.constants[c].dtype)), tile_);
  }
  for (int i = 0; i < input_count_; ++i) {
    const Input& in = input_[i];
    if (in.source == Source::kScalar && !in.by_row) {
      fill(where[i], in_[i], in.item, tile_);
    } else if (in.source == Source::kPeriodic) {
      char* to = static_cast<char*>(where[i]);
      const std::int64_t total = (in.period + tile_) * in.item;
      std::int64_t have = in.period * in.item;
      std::memcpy(to, in_[i], static_cast<std::size_t>(have));
      for (; have < total; have *= 2)
        std::memcpy(to + have, to, static_cast<std::size_t>(std::min(have, total - have)));
    }
  }
}

void Interpreter::run(const Ranges& ranges, char* last) const {
  if (ranges.count > 1 && ranges.stride == ranges.n) return run({ranges.begin, ranges.n * ranges.count}, last);
  Run run;
  run.memory = arena.at_least(static_cast<std::size_t>(arena_bytes_));
  load_fixed(run);
  const auto item = static_cast<std::int64_t>(itemsize(program_.outputs.back().dtype));
  for (std::int64_t r = 0; r < ranges.count; ++r) {
    const std::int64_t begin = ranges.begin + r * ranges.stride;
    run.last = last ? last + (r * ranges.n - begin) * item : static_cast<char*>(out_[output_count_ - 1]);
    run_range(begin, ranges.n, run);
  }
}

// Row by row; without rows the whole array is one.
void Interpreter::run_range(std::int64_t begin, std::int64_t n, Run& run) const {
  std::int64_t at[kMaxAxes] = {};  // of the row
  std::int64_t rows = begin / row_, column = begin - rows * row_;
  for (int k = 1; k < axes_.count && rows != 0; ++k) {
    at[k] = rows % axes_.lengths[k];
    rows /= axes_.lengths[k];
  }
  for (const std::int64_t end = begin + n; begin < end;) {
    const std::int64_t here = std::min(end - begin, row_ - column), whole = here / kBlock * kBlock;
    start_row(begin, column, at, here, run);
    for (std::int64_t done = 0; done < whole; done += tile_) run_tile(begin + done, std::min(tile_, whole - done), run);
    if (whole < here) run_partial(begin + whole, here - whole, run);
    begin += here;
    column = 0;
    for (int k = 1; k < axes_.count && ++at[k] == axes_.lengths[k]; ++k) at[k] = 0;
  }
}

char* Interpreter::target(int output, std::int64_t begin, const Run& run) const {
  char* const base = output == output_count_ - 1 ? run.last : static_cast<char*>(out_[output]);
  return base + begin * static_cast<std::int64_t>(itemsize(program_.outputs[output].dtype));
}

// The addresses for `n` elements from `begin` on, which is `column` in its row.
void Interpreter::start_row(std::int64_t begin, std::int64_t column, const std::int64_t* at, std::int64_t n,
                            Run& run) const {
  for (int i = 0; i < input_count_; ++i) {
    const Input& in = input_[i];
    std::int64_t element = begin;
    if (in.by_row) {
      element = column * in.strides[0];
      for (int k = 1; k < axes_.count; ++k) element += at[k] * in.strides[k];
    }
    const char* const from = static_cast<const char*>(in_[i]) + element * in.item;
    if (in.source == Source::kDirect && !in.keep) run.where[i] = const_cast<char*>(from);
    else run.from[i] = from;
    if (in.source == Source::kScalar && in.by_row)
      best_tile_table().fill(run.where[i], from, in.item, std::min(tile_, (n + kBlock - 1) / kBlock * kBlock));
  }
  for (int k = 0; k < moving_count_; ++k) {
    const int v = moving_[k].value;
    if (v >= input_count_) run.where[v] = target(direct_output_[v], begin, run);
  }
}

// Copies the next `n` elements, from `begin` on, of the inputs that are not read in place.
void Interpreter::load_tile(std::int64_t begin, std::int64_t n, Run& run) const {
  for (int k = 0; k < loaded_count_; ++k) {
    const int i = loaded_[k];
    const Input& in = input_[i];
    char* const to = run.memory + in.offset;
    if (in.source == Source::kPeriodic) {
      run.where[i] = to + begin % in.period * in.item;
    } else if (in.source == Source::kDirect) {
      std::memcpy(to, run.from[i], static_cast<std::size_t>(n * in.item));
      run.from[i] += n * in.item;
    } else if (in.by_row) {
      best_tile_table().strided(to, run.from[i], in.strides[0], in.item, n);
      run.from[i] += n * in.strides[0] * in.item;
    } else {
      gather(to, in_[i], axes_, in.strides, in.item, begin, n);
    }
  }
}

void Interpreter::run_steps(std::int64_t begin, std::int64_t n, std::int64_t count, Run& run) const {
  void** const where = run.where;
  for (int s = 0; s < step_count_; ++s) {
    const Step& step = step_[s];
    step.fn(where[step.dst], where[step.in[0]], where[step.in[1]], where[step.in[2]], count);
    if (watch_) {
      const void* operands[] = {where[step.in[0]], where[step.in[1]], where[step.in[2]]};
      watch_->look(s, where[step.dst], operands, begin, n);
    }
  }
  for (int k = 0; k < store_count_; ++k) store(store_[k].value, store_[k].output, begin, n, run);
}

void Interpreter::store(int value, int output, std::int64_t begin, std::int64_t n, Run& run) const {
  const auto item = static_cast<std::int64_t>(itemsize(program_.outputs[output].dtype));
  std::memmove(target(output, begin, run), run.where[value], static_cast<std::size_t>(n * item));
}

// `n` elements from `begin` on: whole blocks.
void Interpreter::run_tile(std::int64_t begin, std::int64_t n, Run& run) const {
  if (loaded_count_ > 0) load_tile(begin, n, run);
  run_steps(begin, n, n, run);
  for (int k = 0; k < moving_count_; ++k) {
    void*& where = run.where[moving_[k].value];
    where = static_cast<char*>(where) + n * moving_[k].item;
  }
}

// The last `n` elements of a row, less than a block: through copies padded with zeros.
void Interpreter::run_partial(std::int64_t begin, std::int64_t n, Run& run) const {
  if (loaded_count_ > 0) load_tile(begin, n, run);
  for (int k = 0; k < moving_count_; ++k) {
    const int v = moving_[k].value;
    char* const padded = run.memory + offset_[v];
    if (v < input_count_) std::memcpy(padded, run.where[v], static_cast<std::size_t>(n * moving_[k].item));
    run.where[v] = padded;
  }
  for (int i = 0; i < input_count_; ++i) {
    const Input& in = input_[i];
    if (in.source != Source::kDirect && in.source != Source::kStrided) continue;
    std::memset(static_cast<char*>(run.where[i]) + n * in.item, 0, static_cast<std::size_t>((kBlock - n) * in.item));
  }
  run_steps(begin, n, kBlock, run);
  for (int k = 0; k < moving_count_; ++k) {
    const int v = moving_[k].value;
    if (v >= input_count_) store(v, direct_output_[v], begin, n, run);
  }
}

}  // namespace owl::cpu
