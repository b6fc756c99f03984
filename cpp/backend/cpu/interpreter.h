// How one program runs: which value lives where, and the loop over tiles and instructions.
//
// Dense inputs are read and outputs written where they are. Everything else lives in the thread's arena: registers,
// constants, and copies of inputs that broadcast or stride. Instructions always run over multiples of kBlock elements;
// the last few elements of a program go through padded copies, so that no element's bits depend on its place.
#pragma once

#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/nan_watch.h"
#include "backend/cpu/strided_copy.h"
#include "backend/cpu/tile.h"

namespace owl::cpu {

// More than the planner puts into a program: of 64 instructions all may be outputs, and the kernel's result as well.
inline constexpr int kMaxInputs = 64, kMaxOutputs = 128, kMaxInstructions = 256, kMaxValues = 640;

// Memory of a thread that grows as it is asked for.
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

// Arrays are sized for the largest program and left unset: small programs must not pay for them. The program and the
// memory it names must outlive the interpreter. With a watch, every result is looked at, and no result takes the place
// of an operand.
class Interpreter {
 public:
  Interpreter(const Program& program, const void* const* inputs, void* const* outputs, NanWatch* watch = nullptr);

  std::int64_t size() const { return size_; }
  std::int64_t tile() const { return tile_; }
  void run(std::int64_t begin, std::int64_t end) const { run({begin, end - begin}); }
  // With `last`, the last output goes there, the runs one after another.
  void run(const Ranges& ranges, char* last = nullptr) const;

 private:
  enum class Source : std::uint8_t {
    kDirect,    // dense: read where it is
    kScalar,    // one element: a filled register
    kPeriodic,  // the first axes again and again: a register with a period more than a tile
    kStrided,   // gathered for each tile
  };
  struct Input {
    Source source;
    std::uint8_t item;
    bool keep;            // copied at the start of a tile: an output takes its memory before its last use
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

  void classify_inputs();
  void choose_steps();
  void place_results();
  void load_fixed(char* memory, void** where) const;
  void run_tile(std::int64_t begin, std::int64_t n, char* memory, void** where, char* last) const;
  std::int64_t reserve(std::int64_t elements) {
    const auto at = arena_bytes_;
    arena_bytes_ += (elements * item_ + 63) & ~std::int64_t{63};
    return at;
  }

  const Program& program_;
  NanWatch* const watch_;
  const int input_count_, constant_count_, value_count_, output_count_;
  int step_count_ = 0;
  std::int64_t size_, tile_ = kBlock, arena_bytes_ = 0;
  std::int64_t item_ = 1;  // the largest item size: of one register's element
  Axes axes_;
  int store_count_ = 0;
  const void* in_[kMaxInputs];
  void* out_[kMaxOutputs];
  Input input_[kMaxInputs];
  Step step_[kMaxInstructions];
  Store store_[kMaxOutputs];
  // Of each value: where in the arena, or which output it is written to at once.
  std::int64_t offset_[kMaxValues];
  std::int16_t direct_output_[kMaxValues];
};

}  // namespace owl::cpu
