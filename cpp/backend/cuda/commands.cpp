#include "backend/cuda/commands.h"

#include <algorithm>

#include "base/env.h"
#include "owl/error.h"
#include "base/counters.h"

namespace owl::cuda {

namespace {

constexpr std::size_t kLeastCommands = 4;  // the fewest for which a graph is faster
constexpr std::size_t kCopied = 16;        // bytes of a thread of owl_copy
constexpr std::size_t kMostEntries = 256;
constexpr int kMostRebuilds = 8, kMostFailures = 3;
constexpr std::size_t kMostBound = 16 << 20;  // bytes of an operand: copying a larger one costs more than it saves

std::uint64_t mixed(std::uint64_t hash, std::uint64_t x) {
  hash ^= x + 0x9e3779b97f4a7c15 + (hash << 6) + (hash >> 2);
  return hash * 0xff51afd7ed558ccd;
}

// Hashes everything but memory and the kernels' arguments.
std::uint64_t hash_of(const std::vector<Command>& list) {
  std::uint64_t hash = list.size();
  for (const auto& c : list) {
    hash = mixed(hash, reinterpret_cast<std::uintptr_t>(c.kernel));
    hash = mixed(hash, reinterpret_cast<std::uintptr_t>(c.call));
    hash = mixed(hash, c.blocks);
  }
  return hash;
}

bool same_form(const Command& a, const Command& b) {
  return a.kernel == b.kernel && a.call == b.call && a.blocks == b.blocks && a.slots.size() == b.slots.size() &&
         a.memory.size() == b.memory.size();
}

void run_one(const Command& c, CUstream stream) {
  if (c.call) return c.call->run(stream, c.memory);
  void* arguments = const_cast<std::uint64_t*>(c.slots.data());
  check(driver().cuLaunchKernel(c.kernel, c.blocks, 1, 1, kBlock, 1, 1, 0, stream, &arguments, nullptr), c.op);
}

// A kernel as a graph's node, with a copy of its slots: `arguments` must live until the node is created or updated.
struct KernelNode {
  void* arguments;
  CUDA_KERNEL_NODE_PARAMS params{};

  KernelNode(CUfunction kernel, unsigned blocks, const std::uint64_t* slots)
      : arguments(const_cast<std::uint64_t*>(slots)) {
    params.func = kernel;
    params.gridDimX = blocks;
    params.gridDimY = params.gridDimZ = params.blockDimY = params.blockDimZ = 1;
    params.blockDimX = kBlock;
    params.kernelParams = &arguments;
  }
  KernelNode(const KernelNode&) = delete;
};

// Adds the kernel after the nodes `last`, and sets `last` to it.
CUgraphNode add_kernel(CUgraph graph, std::vector<CUgraphNode>& last, CUfunction kernel, unsigned blocks,
                       const std::vector<std::uint64_t>& slots) {
  const KernelNode node(kernel, blocks, slots.data());
  CUgraphNode added = nullptr;
  check(driver().cuGraphAddKernelNode(&added, graph, last.data(), last.size(), &node.params), "a CUDA graph");
  last = {added};
  return added;
}

std::vector<std::uint64_t> slots_of_copy(const void* from, const void* to, std::size_t bytes) {
  return {reinterpret_cast<std::uintptr_t>(from), reinterpret_cast<std::uintptr_t>(to), bytes};
}

}  // namespace

unsigned blocks_to_copy(std::size_t bytes) {
  return static_cast<unsigned>(blocks_for(static_cast<std::int64_t>((bytes + kCopied - 1) / kCopied)));
}

std::string Command::text() const {
  if (call) return call->text();
  return "kernel " + std::string(name) + ", " + std::to_string(blocks) + (blocks == 1 ? " block" : " blocks");
}

void Runner::run_plain(const std::vector<Command>& list, std::size_t& at) {
  launched_ = list.size();
  for (at = 0; at < list.size(); ++at) run_one(list[at], stream_);
}

void Runner::run(const std::vector<Command>& list, const Functions& device, bool may_bind, std::size_t& at) {
  at = 0;
  if (list.size() < kLeastCommands) return run_plain(list, at);
  const auto hash = hash_of(list);
  auto [place, is_new] = entries_.try_emplace(hash);
  Entry& entry = place->second;
  if (is_new) {
    entry.age = ages_.insert(ages_.begin(), hash);
    entry.form = list;
    for (const auto& c : list) {
      Step step;
      for (const auto& m : c.memory) step.memory.push_back(m.data);
      step.bound.resize(c.memory.size());
      entry.steps.push_back(std::move(step));
    }
    if (entries_.size() > kMostEntries) {
      const auto oldest = entries_.find(ages_.back());
      drop(oldest->second, device);
      ages_.pop_back();
      entries_.erase(oldest);
    }
  } else {
    ages_.splice(ages_.begin(), ages_, entry.age);
    entry.hopeless |= !std::ranges::equal(list, entry.form, same_form);  // two lists with the same hash
  }
  if (++entry.seen == 1 || entry.hopeless || !run_graph(entry, list, device, may_bind)) run_plain(list, at);
}

// Launches the list as a graph; false if that fails, because a call cannot be captured, memory is short or another
// library has disturbed the capture. The next list may succeed.
bool Runner::run_graph(Entry& entry, const std::vector<Command>& list, const Functions& device, bool may_bind) {
  try {
    const bool moved = note_moves(entry, list, device, may_bind);
    if (entry.hopeless) return false;
    if (entry.exec && !moved)
      bind(entry, list, device);
    else
      build(entry, list, device);
    check(driver().cuGraphLaunch(entry.exec, stream_), "a CUDA graph");
    count(counters.graph_replays);
    launched_ = 1;
    return true;
  } catch (const Error& e) {
    lacked_memory_ |= dynamic_cast<const OutOfMemoryError*>(&e) != nullptr;
    if (settings().log_run) log_line(std::string("no CUDA graph: ") + e.what());
    destroy_graph(entry);
    entry.hopeless = ++entry.failures == kMostFailures;
    if (entry.hopeless) drop(entry, device);
    return false;
  }
}

// Allocates memory for library operands whose address has changed since the list was first seen. True if there are new
// ones.
bool Runner::note_moves(Entry& entry, const std::vector<Command>& list, const Functions& device, bool may_bind) {
  bool moved = false;
  for (std::size_t i = 0; i < list.size(); ++i) {
    Step& step = entry.steps[i];
    for (std::size_t k = 0; k < list[i].memory.size(); ++k) {
      const Memory& m = list[i].memory[k];
      if (m.data == step.memory[k] || step.bound[k].data) continue;
      if (!may_bind || m.bytes > kMostBound || entry.rebuilt >= kMostRebuilds) {
        entry.hopeless = true;
        drop(entry, device);
        return false;
      }
      step.bound[k].data = device.allocate(device.device, m.bytes);
      if (!step.bound[k].data) throw OutOfMemoryError("no memory for an operand that moves");
      moved = true;
    }
  }
  entry.rebuilt += moved;
  return moved;
}

// owl's kernels become nodes directly. Only library calls are captured, each separately, so that a capture is short:
// during one, no thread of the process may wait for the whole GPU.
void Runner::build(Entry& entry, const std::vector<Command>& list, const Functions& device) {
  count(counters.graph_captures);
  destroy_graph(entry);
  check(driver().cuGraphCreate(&entry.graph, 0), "a CUDA graph");
  Nodes last;
  const auto add_copy = [&](const void* from, const void* to, std::size_t bytes) {
    return add_kernel(entry.graph, last, device.copy, blocks_to_copy(bytes), slots_of_copy(from, to, bytes));
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Command& c = list[i];
    Step& step = entry.steps[i];
    if (c.kernel) {
      step.node = add_kernel(entry.graph, last, c.kernel, c.blocks, c.slots);
      step.slots = c.slots;
      continue;
    }
    auto memory = c.memory;
    for (std::size_t k = 0; k < memory.size(); ++k) {
      step.memory[k] = memory[k].data;
      if (!step.bound[k].data) continue;
      memory[k].data = step.bound[k].data;
      if (!memory[k].written) step.bound[k].copy = add_copy(c.memory[k].data, memory[k].data, memory[k].bytes);
    }
    capture(c, memory, entry.graph, last);
    for (std::size_t k = 0; k < memory.size(); ++k)
      if (step.bound[k].data && memory[k].written)
        step.bound[k].copy = add_copy(memory[k].data, c.memory[k].data, memory[k].bytes);
  }
  check(driver().cuGraphInstantiate(&entry.exec, entry.graph, 0), "a CUDA graph");
}

void Runner::capture(const Command& command, const std::vector<Memory>& memory, CUgraph graph, Nodes& last) {
  const Driver& d = driver();
  constexpr const char* what = "a CUDA graph's capture";
  check(d.cuStreamBeginCaptureToGraph(aside_, graph, last.data(), nullptr, last.size(), CU_STREAM_CAPTURE_MODE_RELAXED),
        what);
  CUgraph same = nullptr;
  try {
    command.call->run(aside_, memory);
    CUstreamCaptureStatus status;
    cuuint64_t id = 0;
    const CUgraphNode* nodes = nullptr;
    const CUgraphEdgeData* edges = nullptr;
    std::size_t count = 0;
    check(d.cuStreamGetCaptureInfo(aside_, &status, &id, &same, &nodes, &edges, &count), what);
    if (status == CU_STREAM_CAPTURE_STATUS_ACTIVE) last.assign(nodes, nodes + count);
  } catch (...) {
    d.cuStreamEndCapture(aside_, &same);
    throw;
  }
  check(d.cuStreamEndCapture(aside_, &same), what);
}

// Sets this list's arguments in the graph's kernels.
void Runner::bind(Entry& entry, const std::vector<Command>& list, const Functions& device) {
  const auto set = [&](CUgraphNode node, CUfunction kernel, unsigned blocks, const std::vector<std::uint64_t>& slots) {
    const KernelNode again(kernel, blocks, slots.data());
    check(driver().cuGraphExecKernelNodeSetParams(entry.exec, node, &again.params), "a CUDA graph's arguments");
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Command& c = list[i];
    Step& step = entry.steps[i];
    if (c.kernel && step.slots != c.slots) {
      set(step.node, c.kernel, c.blocks, c.slots);
      step.slots = c.slots;
    }
    for (std::size_t k = 0; k < c.memory.size(); ++k) {
      const auto& [data, copy] = step.bound[k];
      const Memory& m = c.memory[k];
      if (!data || m.data == step.memory[k]) continue;
      set(copy, device.copy, blocks_to_copy(m.bytes),
          slots_of_copy(m.written ? data : m.data, m.written ? m.data : data, m.bytes));
      step.memory[k] = m.data;
    }
  }
}

// Launched work still runs: the driver frees the graph when it has ended.
void Runner::destroy_graph(Entry& entry) {
  if (entry.exec) driver().cuGraphExecDestroy(std::exchange(entry.exec, nullptr));
  if (entry.graph) driver().cuGraphDestroy(std::exchange(entry.graph, nullptr));
}

void Runner::drop(Entry& entry, const Functions& device) {
  destroy_graph(entry);
  for (Step& step : entry.steps)
    for (Bound& b : step.bound)
      if (b.data) device.free(device.device, std::exchange(b.data, nullptr));
}

}  // namespace owl::cuda
