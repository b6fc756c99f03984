// The work of a GPU as data: a list of commands for one stream, in order. A list that repeats, such as that of a
// training loop's body, becomes a CUDA graph at its second occurrence and is replayed from then on, with the current
// memory bound to it.
#pragma once

#include <bit>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend/cuda/api.h"
#include "base/source.h"

namespace owl::cuda {

inline constexpr int kBlock = 256;  // threads of a block, in every kernel
inline std::int64_t blocks_for(std::int64_t threads) { return (threads + kBlock - 1) / kBlock; }

// The arguments of a launch.
class Slots {
 public:
  void add(const void* pointer) { values.push_back(reinterpret_cast<std::uintptr_t>(pointer)); }
  void add(std::int64_t n) { values.push_back(static_cast<std::uint64_t>(n)); }
  void add(double x) { values.push_back(std::bit_cast<std::uint64_t>(x)); }
  std::vector<std::uint64_t> values;
};

// Memory that a library's call reads or writes.
struct Memory {
  void* data;
  std::size_t bytes;
  bool written;
};

// A prepared library call, without its memory. Lives as long as the device, so that commands with the same LibraryCall
// do the same.
class LibraryCall {
 public:
  virtual ~LibraryCall() = default;
  // Enqueues it; `memory` in the order of Command::memory. Throws DeviceError.
  // If the library refuses an algorithm that it proposed, uses the next one from then on.
  virtual void run(CUstream stream, const std::vector<Memory>& memory) const = 0;
  virtual std::string text() const = 0;
};

struct Command {
  std::uint64_t order = 0;  // its task's number (Storage::order)
  const char* op = "";      // the operation
  Source source;
  CUfunction kernel = nullptr;
  const char* name = "";  // the kernel's
  unsigned blocks = 0;
  std::vector<std::uint64_t> slots;   // the kernel's arguments
  const LibraryCall* call = nullptr;  // instead of a kernel
  std::vector<Memory> memory;

  std::string text() const;  // "kernel owl_program, 12 blocks"
};

// The number of blocks of the kernel owl_copy.
unsigned blocks_to_copy(std::size_t bytes);

// Runs lists of commands on one stream. Not thread-safe.
class Runner {
 public:
  struct Functions {  // of its device
    CUfunction copy;  // owl_copy: copies slot 2's number of bytes from slot 0 to slot 1
    void* (*allocate)(void* device, std::size_t bytes);
    void (*free)(void* device, void* data);
    void* device;
  };

  // `aside`: a separate stream, on which library calls are captured. No thread or library may wait for a stream that
  // captures, and others know `stream`.
  Runner(CUstream stream, CUstream aside) : stream_(stream), aside_(aside) {}
  // `may_bind`: whether graphs may allocate memory for library operands whose address changes. Throws owl::Error; `at`
  // is then the failed command, and those before it run.
  void run(const std::vector<Command>& list, const Functions& device, bool may_bind, std::size_t& at);
  // Runs the rest of a list command by command.
  void run_plain(const std::vector<Command>& list, std::size_t& at);
  // Whether a graph could not be created for lack of memory since the last call.
  bool lacked_memory() { return std::exchange(lacked_memory_, false); }
  // What the last run() put on the stream: 1 for a graph, otherwise the number of launches.
  std::size_t launched() const { return launched_; }

 private:
  struct Bound {  // a library operand whose address changes: the call uses `data`, with a copy before or after it
    void* data = nullptr;
    CUgraphNode copy = nullptr;
  };
  struct Step {
    CUgraphNode node = nullptr;        // of a kernel
    std::vector<std::uint64_t> slots;  // the arguments bound now
    std::vector<void*> memory;         // of a call, as first seen
    std::vector<Bound> bound;          // of a call, by operand
  };
  struct Entry {
    std::vector<Command> form;  // without memory; with the number of slots only
    std::vector<Step> steps;
    CUgraph graph = nullptr;  // its nodes identify those of exec
    CUgraphExec exec = nullptr;
    int seen = 0, rebuilt = 0, failures = 0;
    bool hopeless = false;  // a graph is not worthwhile
    std::list<std::uint64_t>::iterator age;
  };
  using Nodes = std::vector<CUgraphNode>;

  bool run_graph(Entry& entry, const std::vector<Command>& list, const Functions& device, bool may_bind);
  bool note_moves(Entry& entry, const std::vector<Command>& list, const Functions& device, bool may_bind);
  void build(Entry& entry, const std::vector<Command>& list, const Functions& device);
  void capture(const Command& command, const std::vector<Memory>& memory, CUgraph graph, Nodes& last);
  void bind(Entry& entry, const std::vector<Command>& list, const Functions& device);
  static void destroy_graph(Entry& entry);
  static void drop(Entry& entry, const Functions& device);

  CUstream stream_, aside_;
  std::unordered_map<std::uint64_t, Entry> entries_;
  std::list<std::uint64_t> ages_;  // the newest first
  bool lacked_memory_ = false;
  std::size_t launched_ = 0;
};

}  // namespace owl::cuda
