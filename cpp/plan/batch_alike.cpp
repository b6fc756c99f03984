#include "plan/batch_alike.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

#include "device/device.h"
#include "plan/batch.h"

namespace owl::planner {

std::atomic<bool> batch_alike{true};

namespace {

constexpr std::size_t kMaxOperations = 4096;    // of one task
constexpr std::size_t kMaxBytes = 1 << 20;      // of a result
// What is held back in all. The scheduler's limits on what is in flight do not count it.
constexpr std::size_t kMaxHeldBytes = 256 << 20;  // of operands and results
constexpr std::size_t kMaxBuckets = 64;
constexpr double kSmallNs = 100e3;              // a longer program fills a chunk by itself (kProgramChunkNs of backend/cpu/cost.h)
constexpr double kFullNs = 3 * kSmallNs;

const Program& first_program(const Task& task) { return task.before ? *task.before : *task.segments.front().program; }

// A program alone, without a view or copy to gather, on a device whose memory is not limited: there the order of tasks
// decides which of them fit.
bool is_small_program(const Task& task) {
  if (task.op || task.strips || task.traced || task.cost_ns > kSmallNs || task.before->instructions.empty()) return false;
  const auto is_dense = [](const TaskOperand& in) { return in.array.dense; };
  const auto is_small = [](const TaskOperand& out) { return out.storage->bytes <= kMaxBytes; };
  return task.device->backend->runs_segments() && task.device->allocator.limit() == 0 &&
         std::ranges::all_of(task.inputs, is_dense) && std::ranges::all_of(task.outputs, is_small);
}

// 0: the task is not to be joined.
std::uint64_t key_of(const Task& task) { return is_small_program(task) ? task.alike_key : 0; }

template <class T, class Same> bool all_same(const std::vector<T>& a, const std::vector<T>& b, Same same) {
  return std::ranges::equal(a, b, same);
}

bool are_alike(const Program& a, const Program& b) {
  using P = Program;
  return all_same(a.inputs, b.inputs, [](const P::Input& x, const P::Input& y) {
           return x.dtype == y.dtype && x.dense == y.dense;
         }) &&
         all_same(a.constants, b.constants, [](const P::Constant& x, const P::Constant& y) { return x.dtype == y.dtype; }) &&
         all_same(a.instructions, b.instructions, [](const P::Instruction& x, const P::Instruction& y) {
           return x.code == y.code && x.dtype == y.dtype && x.result == y.result && x.arity == y.arity &&
                  std::equal(x.in, x.in + x.arity, y.in);
         }) &&
         all_same(a.outputs, b.outputs, [](const P::Output& x, const P::Output& y) {
           return x.value == y.value && x.dtype == y.dtype;
         });
}

// What the task's last segment has in memory, apart from what the one before has at the same place: parts of one array.
std::size_t bytes_of_last_segment(Task& task) {
  const auto last = segment_count(task) - 1;
  const auto own = segment(task, last).inputs;
  const auto before = last ? segment(task, last - 1).inputs : std::span<TaskOperand>();
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < own.size(); ++i)
    if (!last || own[i].storage != before[i].storage) bytes += own[i].storage->bytes;
  for (const auto& out : segment(task, last).outputs) bytes += out.storage->bytes;
  return bytes;
}

// Work enough for a few chunks on each worker: there is nothing to wait for. A GPU runs all in a launch or two.
bool is_full(const Task& task) {
  return !task.device->backend->is_async() && task.cost_ns >= kFullNs * task.device->threads;
}

}  // namespace

std::uint64_t alike_key(const Device& device, const Program& program) {
  std::uint64_t key = 14695981039346656037u;  // FNV-1a, a number at a time
  const auto mix = [&key](std::uint64_t part) { key = (key ^ part) * 1099511628211u; };
  mix(static_cast<std::uint64_t>(device.id));
  for (const auto& i : program.inputs) mix(static_cast<std::uint64_t>(i.dtype) * 2 + i.dense);
  for (const auto& c : program.constants) mix(16 + static_cast<std::uint64_t>(c.dtype));
  for (const auto& i : program.instructions) {
    mix(std::uint64_t{i.code} << 16 | static_cast<std::uint64_t>(i.dtype) << 8 | static_cast<std::uint64_t>(i.result));
    for (int k = 0; k < i.arity; ++k) mix(i.in[k]);
  }
  for (const auto& o : program.outputs) mix(std::uint64_t{o.value} << 8 | static_cast<std::uint64_t>(o.dtype));
  return key | 1;
}

void append_alike(Task& to, Task& from) {
  const auto close_segment = [&to](std::shared_ptr<const Program> program) {
    to.segments.push_back({std::move(program), to.inputs.size(), to.outputs.size()});
  };
  if (to.segments.empty()) close_segment(std::move(to.before));
  for (auto& out : from.outputs) out.storage->producer = &to;
  const auto move_all = [](auto& some, auto& more) {
    some.insert(some.end(), std::move_iterator(more.begin()), std::move_iterator(more.end()));
  };
  move_all(to.inputs, from.inputs);
  move_all(to.outputs, from.outputs);
  close_segment(std::move(from.before));
  to.cost_ns += from.cost_ns;
}

// The task joins those that are alike, or is the first of them. Where another program has its key it comes back.
std::unique_ptr<Task> AlikeTasks::hold(std::unique_ptr<Task> task, std::uint64_t key, Tasks& ready) {
  auto bucket = std::ranges::find(buckets_, key, &Bucket::key);
  if (bucket == buckets_.end()) {
    bucket = buckets_.insert(bucket, {key, std::move(task), 0, 0});
  } else if (!are_alike(first_program(*bucket->task), *task->before)) {
    return task;
  } else {
    append_alike(*bucket->task, *task);
  }
  Task& joined = *bucket->task;
  bucket->operations += first_program(joined).instructions.size();
  for (auto& out : segment(joined, segment_count(joined) - 1).outputs) out.storage->held_by = &joined;
  const auto bytes = bytes_of_last_segment(joined);
  bucket->bytes += bytes;
  bytes_ += bytes;
  if (is_full(joined) || bucket->operations + kMaxInstructions > kMaxOperations) release(&joined, ready);
  if (buckets_.size() > kMaxBuckets) release(buckets_.front().task.get(), ready);
  if (bytes_ > kMaxHeldBytes) release_all(ready);
  return nullptr;
}

void AlikeTasks::release(const Task* held, Tasks& ready) {
  const auto bucket = std::ranges::find(buckets_, held, [](const Bucket& b) { return b.task.get(); });
  if (bucket == buckets_.end()) return;
  for (auto& out : bucket->task->outputs) out.storage->held_by = nullptr;
  bytes_ -= bucket->bytes;
  ready.push_back(std::move(bucket->task));
  buckets_.erase(bucket);
}

void AlikeTasks::release_all(Tasks& ready) {
  while (!buckets_.empty()) release(buckets_.front().task.get(), ready);
}

std::vector<Task*> AlikeTasks::tasks() const {
  std::vector<Task*> all;
  for (const auto& bucket : buckets_) all.push_back(bucket.task.get());
  return all;
}

bool AlikeTasks::is_common(std::uint64_t key) const {
  const bool has_bucket = std::ranges::find(buckets_, key, &Bucket::key) != buckets_.end();
  const auto known = std::ranges::count(keys_, key) + std::ranges::count(last_keys_, key);
  return has_bucket || static_cast<std::size_t>(known) >= kFewest;
}

// What is held reads nothing that is held, since a task that does so first lets it go: the programs of one segmented
// task are independent of one another, and the order in which tasks are let go is free.
void AlikeTasks::add(Tasks planned, Tasks& ready) {
  keys_.clear();
  for (const auto& task : planned) keys_.push_back(key_of(*task));
  for (std::size_t t = 0; t < planned.size(); ++t) {
    auto& task = planned[t];
    for (const auto& in : task->inputs)
      if (in.storage->held_by) release(in.storage->held_by, ready);
    if (keys_[t] != 0 && is_common(keys_[t])) task = hold(std::move(task), keys_[t], ready);
    if (task) ready.push_back(std::move(task));
  }
  std::erase(keys_, 0);
  keys_.swap(last_keys_);
}

}  // namespace owl::planner
