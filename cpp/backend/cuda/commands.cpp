#include "backend/cuda/commands.h"

#include <algorithm>

#include "backend/cuda/emit.h"
#include "base/env.h"
#include "owl/error.h"
#include "runtime/counters.h"

namespace owl::cuda {

namespace {

constexpr std::size_t kLeastCommands = 4;  // of a list, for a graph to pay
constexpr std::size_t kCopied = 16;        // bytes of a thread of owl_copy
constexpr std::size_t kMostEntries = 256;
constexpr int kMostRebuilds = 8;
constexpr std::size_t kMostBound = 16 << 20;  // bytes of an operand: copying a larger one costs more than it saves

std::uint64_t mixed(std::uint64_t hash, std::uint64_t x) {
  hash ^= x + 0x9e3779b97f4a7c15 + (hash << 6) + (hash >> 2);
  return hash * 0xff51afd7ed558ccd;
}

// Of everything but memory and the kernels' arguments.
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

}  // namespace

unsigned blocks_to_copy(std::size_t bytes) {
  return static_cast<unsigned>(blocks_for(static_cast<std::int64_t>((bytes + kCopied - 1) / kCopied)));
}

std::string Command::text() const {
  if (call) return call->text();
  return "kernel " + std::string(name) + ", " + std::to_string(blocks) + (blocks == 1 ? " block" : " blocks");
}

void Runner::run_one(const Command& c, const std::vector<Memory>& memory) {
  if (c.call) return c.call->run(stream_, memory);
  void* arguments = const_cast<std::uint64_t*>(c.slots.data());
  check(driver().cuLaunchKernel(c.kernel, c.blocks, 1, 1, kBlock, 1, 1, 0, stream_, &arguments, nullptr), c.op);
}

void Runner::run_plain(const std::vector<Command>& list, std::size_t& at) {
  for (at = 0; at < list.size(); ++at) run_one(list[at], list[at].memory);
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
      if (oldest->second.exec) check(driver().cuStreamSynchronize(stream_), "a CUDA graph's end");
      drop(oldest->second, device);
      ages_.pop_back();
      entries_.erase(oldest);
    }
  } else {
    ages_.splice(ages_.begin(), ages_, entry.age);
    entry.hopeless |= !std::ranges::equal(list, entry.form, same_form);  // two lists of one hash
  }
  if (++entry.seen == 1 || entry.hopeless) return run_plain(list, at);
  const bool moved = note_moves(entry, list, device, may_bind);
  if (entry.hopeless) return run_plain(list, at);
  if (entry.exec && !moved) {
    bind(entry, list, device);
  } else {
    try {
      capture(entry, list, device);
    } catch (const DeviceError& e) {  // something in the list cannot be captured
      if (settings().log_run) log_line(std::string("no CUDA graph: ") + e.what());
      entry.hopeless = true;
      drop(entry, device);
      return run_plain(list, at);
    }
  }
  check(driver().cuGraphLaunch(entry.exec, stream_), "a CUDA graph");
  count(counters.graph_replays);
}

// Gives memory to operands of libraries that have moved since the list was first seen. Whether one has that had not.
bool Runner::note_moves(Entry& entry, const std::vector<Command>& list, const Functions& device, bool may_bind) {
  bool moved = false;
  for (std::size_t i = 0; i < list.size(); ++i) {
    Step& step = entry.steps[i];
    for (std::size_t k = 0; k < list[i].memory.size(); ++k) {
      const Memory& m = list[i].memory[k];
      if (m.data == step.memory[k] || step.bound[k].data) continue;
      if (!may_bind || m.bytes > kMostBound || entry.rebuilt >= kMostRebuilds ||
          !(step.bound[k].data = device.allocate(device.device, m.bytes))) {
        entry.hopeless = true;
        if (entry.exec) check(driver().cuStreamSynchronize(stream_), "a CUDA graph's end");
        drop(entry, device);
        return false;
      }
      moved = true;
    }
  }
  entry.rebuilt += moved;
  return moved;
}

CUgraphNode Runner::last_node() {
  CUstreamCaptureStatus status;
  cuuint64_t id = 0;
  CUgraph graph = nullptr;
  const CUgraphNode* last = nullptr;
  const CUgraphEdgeData* edges = nullptr;
  std::size_t count = 0;
  check(driver().cuStreamGetCaptureInfo(stream_, &status, &id, &graph, &last, &edges, &count),
        "a CUDA graph's capture");
  return count == 1 ? last[0] : nullptr;
}

void Runner::launch_copy(const Functions& device, const void* from, void* to, std::size_t bytes) {
  Command copy;
  copy.op = "copy";
  copy.kernel = device.copy(device.device);
  copy.blocks = blocks_to_copy(bytes);
  copy.slots = {reinterpret_cast<std::uintptr_t>(from), reinterpret_cast<std::uintptr_t>(to), bytes};
  run_one(copy, {});
}

void Runner::capture(Entry& entry, const std::vector<Command>& list, const Functions& device) {
  count(counters.graph_captures);
  if (entry.exec) {
    check(driver().cuStreamSynchronize(stream_), "a CUDA graph's end");
    destroy_graph(entry);
  }
  check(driver().cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_RELAXED), "a CUDA graph's capture");
  try {
    for (std::size_t i = 0; i < list.size(); ++i) {
      const Command& c = list[i];
      Step& step = entry.steps[i];
      auto memory = c.memory;
      for (std::size_t k = 0; k < memory.size(); ++k) {
        step.memory[k] = memory[k].data;
        if (!step.bound[k].data) continue;
        memory[k].data = step.bound[k].data;
        if (memory[k].written) continue;
        launch_copy(device, c.memory[k].data, memory[k].data, memory[k].bytes);
        step.bound[k].copy = last_node();
      }
      run_one(c, memory);
      if (c.kernel) {
        step.node = last_node();
        step.slots = c.slots;
      }
      for (std::size_t k = 0; k < memory.size(); ++k) {
        if (!step.bound[k].data || !memory[k].written) continue;
        launch_copy(device, memory[k].data, c.memory[k].data, memory[k].bytes);
        step.bound[k].copy = last_node();
      }
    }
  } catch (...) {
    driver().cuStreamEndCapture(stream_, &entry.graph);
    throw;  // the entry is dropped
  }
  check(driver().cuStreamEndCapture(stream_, &entry.graph), "a CUDA graph's capture");
  check(driver().cuGraphInstantiate(&entry.exec, entry.graph, 0), "a CUDA graph");
}

// The graph's kernels get this list's arguments.
void Runner::bind(Entry& entry, const std::vector<Command>& list, const Functions& device) {
  const auto set = [&](CUgraphNode node, CUfunction kernel, unsigned blocks, const std::uint64_t* slots) {
    void* arguments = const_cast<std::uint64_t*>(slots);
    CUDA_KERNEL_NODE_PARAMS params{};
    params.func = kernel;
    params.gridDimX = blocks;
    params.gridDimY = params.gridDimZ = params.blockDimY = params.blockDimZ = 1;
    params.blockDimX = kBlock;
    params.kernelParams = &arguments;
    check(driver().cuGraphExecKernelNodeSetParams(entry.exec, node, &params), "a CUDA graph's arguments");
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Command& c = list[i];
    Step& step = entry.steps[i];
    if (c.kernel && step.slots != c.slots) {
      set(step.node, c.kernel, c.blocks, c.slots.data());
      step.slots = c.slots;
    }
    for (std::size_t k = 0; k < c.memory.size(); ++k) {
      const auto& [data, copy] = step.bound[k];
      const Memory& m = c.memory[k];
      if (!data || m.data == step.memory[k]) continue;
      const auto from = reinterpret_cast<std::uintptr_t>(m.written ? data : m.data);
      const auto to = reinterpret_cast<std::uintptr_t>(m.written ? m.data : data);
      const std::uint64_t slots[] = {from, to, m.bytes};
      set(copy, device.copy(device.device), blocks_to_copy(m.bytes), slots);
      step.memory[k] = m.data;
    }
  }
}

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
