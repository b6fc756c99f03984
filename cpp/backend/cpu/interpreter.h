// Runs one program: the placement of its values, and the loop over tiles and instructions.
//
// Dense inputs are read, and outputs written, in place. The thread's arena has everything else: registers, constants,
// and copies of broadcast or strided inputs. Where an input is not dense but the first axis is long, the program runs
// row by row, and an input that is dense along the rows is read in place too. Instructions always run over multiples of
// kBlock elements; the last few elements of a row go through padded copies, so that no element's bits depend on its
// position.
#pragma once

#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/nan_watch.h"
#include "backend/cpu/strided_copy.h"
#include "backend/cpu/tile.h"
#include "base/recycled.h"

namespace owl::cpu {

// Above the planner's limits: all 64 instructions may be outputs, and the kernel's result too.
inline constexpr int kMaxInputs = 64, kMaxOutputs = 128, kMaxInstructions = 256, kMaxValues = 640;

// Memory of a thread that grows on demand.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();
  char* at_least(std::size_t bytes);  // 64-byte aligned; earlier contents are lost

 private:
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

// Arrays are sized for the largest program and left uninitialised, so that small programs do not pay for them. The
// program and its operands' memory must outlive the interpreter. With a watch, every result is checked, and no result
// replaces an operand.
class Interpreter : public Recycled<Interpreter, 8> {
 public:
  Interpreter(const Program& program, const void* const* inputs, void* const* outputs, NanWatch* watch = nullptr);

  std::int64_t size() const { return size_; }
  // Ranges that begin and end at multiples of this many elements run fastest.
  std::int64_t grain() const;
  void run(std::int64_t begin, std::int64_t end) const { run({begin, end - begin}); }
  // With `last`, the last output is written there, the runs one after another.
  void run(const Ranges& ranges, char* last = nullptr) const;

 private:
  enum class Source : std::uint8_t {
    kDirect,    // dense, at least along a row: read in place
    kScalar,    // one element, of the whole array or of a row: a filled register
    kPeriodic,  // repeats its first axes: a register one period longer than a tile
    kStrided,   // gathered for each tile
  };
  struct Input {
    Source source;
    std::uint8_t item;
    bool by_row;          // its address follows from the row and the place in it
    bool keep;            // copied at the start of a tile: an output overwrites its memory before its last use
    std::int64_t period;
    std::int64_t offset;  // in the arena
    Strides strides;
  };
  struct Step {
    TileFn fn;
    std::uint16_t dst;
    std::uint8_t arity;
    std::uint16_t in[3];
  };
  struct Store {
    std::uint16_t value, output;
  };
  // A value that a tile reads or writes in its array: its address moves on with the tiles.
  struct Moving {
    std::uint16_t value;
    std::uint8_t item;
  };
  struct Run;

  void classify_inputs();
  void classify(Input& in) const;
  void choose_steps();
  void place_results();
  void choose_tile(int registers);
  std::int64_t wanted_tile_bytes(int buffers) const;
  void load_fixed(Run& run) const;
  void run_range(std::int64_t begin, std::int64_t n, Run& run) const;
  void start_row(std::int64_t begin, std::int64_t column, const std::int64_t* at, std::int64_t n, Run& run) const;
  void load_tile(std::int64_t begin, std::int64_t n, Run& run) const;
  void run_tile(std::int64_t begin, std::int64_t n, Run& run) const;
  void run_partial(std::int64_t begin, std::int64_t n, Run& run) const;
  void run_steps(std::int64_t begin, std::int64_t n, std::int64_t count, Run& run) const;
  void store(int value, int output, std::int64_t begin, std::int64_t n, Run& run) const;
  char* target(int output, std::int64_t begin, const Run& run) const;
  std::int64_t reserve(std::int64_t elements) {
    const auto at = arena_bytes_;
    arena_bytes_ += (elements * item_ + 63) & ~std::int64_t{63};
    return at;
  }

  const Program& program_;
  NanWatch* const watch_;
  const int input_count_, constant_count_, value_count_, output_count_;
  int step_count_ = 0;
  std::int64_t size_, row_ = 0, tile_ = kBlock, arena_bytes_ = 0;
  std::int64_t item_ = 1;  // item size of registers: the largest of the program
  Axes axes_;
  int store_count_ = 0, loaded_count_ = 0, moving_count_ = 0;
  const void* in_[kMaxInputs];
  void* out_[kMaxOutputs];
  Input input_[kMaxInputs];
  Step step_[kMaxInstructions];
  Store store_[kMaxOutputs];
  std::uint8_t loaded_[kMaxInputs];  // the inputs that are copied for each tile
  Moving moving_[kMaxInputs + kMaxOutputs];
  // For each value: its offset in the arena, or the output to which it is written directly.
  std::int64_t offset_[kMaxValues];
  std::int16_t direct_output_[kMaxValues];
};

}  // namespace owl::cpu
