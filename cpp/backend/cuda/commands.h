// What a GPU is asked to do, as data: a list of commands for one stream, in order. Lists that come again, as those of a
// training loop's body do, are made a CUDA graph at the second time and replayed from then on, with the memory of the
// day bound to them.
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

// A call of a library with everything but the memory decided. Kept for as long as the device lives, so that two
// commands with the same call do the same.
class LibraryCall {
 public:
  virtual ~LibraryCall() = default;
  // Enqueues it; `memory` in the order of Command::memory. Throws DeviceError.
  // Where a library refuses the algorithm that it proposed, the next one is taken, for good.
  virtual void run(CUstream stream, const std::vector<Memory>& memory) const = 0;
  virtual std::string text() const = 0;
};

struct Command {
  std::uint64_t order = 0;  // the number of the task that it is for (Storage::order)
  const char* op = "";      // which operation
  Source source;
  CUfunction kernel = nullptr;
  const char* name = "";  // the kernel's
  unsigned blocks = 0;
  std::vector<std::uint64_t> slots;   // the kernel's arguments
  const LibraryCall* call = nullptr;  // instead of a kernel
  std::vector<Memory> memory;

  std::string text() const;  // "kernel owl_program, 12 blocks"
};

// Of the kernel owl_copy.
unsigned blocks_to_copy(std::size_t bytes);

// Runs lists of commands on one stream. Not thread-safe.
class Runner {
 public:
  struct Functions {  // what it needs of its device
    CUfunction copy;  // a kernel: slot 2's number of bytes from slot 0 to slot 1 (owl_copy)
    void* (*allocate)(void* device, std::size_t bytes);
    void (*free)(void* device, void* data);
    void* device;
  };

  // `aside`: a stream of its own, on which libraries' calls are captured. What is captured on must not be waited for,
  // by any thread or library, and `stream` is known to others.
  Runner(CUstream stream, CUstream aside) : stream_(stream), aside_(aside) {}
  // `may_bind`: whether graphs may have memory of their own, for operands of libraries that move. Throws owl::Error;
  // `at` is then the command that failed, and those before it run.
  void run(const std::vector<Command>& list, const Functions& device, bool may_bind, std::size_t& at);
  // The same one by one, for the rest of a list.
  void run_plain(const std::vector<Command>& list, std::size_t& at);
  // Whether a graph could not be made for want of memory since this was asked last.
  bool lacked_memory() { return std::exchange(lacked_memory_, false); }
  // What the latest run() has put on the stream: one graph, or so many launches.
  std::size_t launched() const { return launched_; }

 private:
  struct Bound {  // a library's operand that moves: the call has it in `data`, a copy before or after it does the rest
    void* data = nullptr;
    CUgraphNode copy = nullptr;
  };
  struct Step {
    CUgraphNode node = nullptr;        // of a kernel
    std::vector<std::uint64_t> slots;  // bound to it now
    std::vector<void*> memory;         // of a call, as first seen
    std::vector<Bound> bound;          // of a call, by operand
  };
  struct Entry {
    std::vector<Command> form;  // without memory; slots only counted
    std::vector<Step> steps;
    CUgraph graph = nullptr;  // its nodes name those of exec
    CUgraphExec exec = nullptr;
    int seen = 0, rebuilt = 0, failures = 0;
    bool hopeless = false;  // no graph pays
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
