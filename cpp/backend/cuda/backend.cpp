#include "backend/cuda/backend.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <thread>

#include "backend/cpu/nan_watch.h"
#include "backend/cpu/run_program.h"
#include "backend/cuda/compiler.h"
#include "backend/cuda/cost.h"
#include "backend/cuda/kernels.h"
#include "base/env.h"
#include "owl/error.h"
#include "graph/sink.h"
#include "ops/elementwise.h"

namespace owl::cuda {

namespace {

// How far the worker may run ahead of the GPU: in lists, and in launches, of which the driver queues about 1000. Beyond
// that the driver's calls would block while owl holds the mutex.
constexpr std::size_t kMostInFlight = 64, kMostLaunches = 768;
constexpr std::size_t kMostInList = 512;       // commands
constexpr std::size_t kMostInBatch = 8 << 20;  // bytes of pinned memory of one copy
constexpr std::size_t kCells = 512;            // allocated together
constexpr std::size_t kMostArriving = 32;      // copies into the device by which a script may run ahead
// A short sleep takes three times as long as requested, so poll for the first kSpun.
constexpr auto kSpun = std::chrono::milliseconds(2);
constexpr auto kNap = std::chrono::microseconds(20), kPatience = std::chrono::microseconds(300);

// Pinned memory comes in sizes of a power of two.
std::size_t pinned_size(std::size_t bytes) { return std::bit_ceil(std::max<std::size_t>(bytes, 4096)); }

CUdeviceptr address(const void* data) { return reinterpret_cast<CUdeviceptr>(data); }

// CUDA refused the call because another library is capturing: not a fault.
bool is_about_capture(CUresult result) {
  return result >= CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED && result <= CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
}

}  // namespace

void raise(const Failure& failure) {
  std::rethrow_exception(failure.error);
}

Backend::Backend(int index) : index_(index), process_(getpid()) {
  const Driver& d = driver();
  int count = 0, major = 0, minor = 0;
  check(d.cuDeviceGetCount(&count), "counting GPUs");
  if (index < 0 || index >= count)
    throw DeviceError("CUDA shows " + std::to_string(count) + (count == 1 ? " GPU" : " GPUs") +
                      " here (CUDA_VISIBLE_DEVICES may hide some); use 0 to " + std::to_string(count - 1) +
                      ", or a CPU device");
  check(d.cuDeviceGet(&gpu_, index), "opening the GPU");
  char name[256] = {};
  check(d.cuDeviceGetName(name, sizeof name - 1, gpu_), "opening the GPU");
  check(d.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, gpu_), "opening the GPU");
  check(d.cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, gpu_), "opening the GPU");
  name_ = std::string(name) + " (GPU " + std::to_string(index) + ")";
  arch_ = "sm_" + std::to_string(major * 10 + minor);
  if (major * 10 + minor < 75)
    throw DeviceError(name_ + " has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
                      "; owl needs 7.5 or newer, as CUDA 13 does");
  check(d.cuDeviceTotalMem(&memory_, gpu_), "opening the GPU");
  check(d.cuDevicePrimaryCtxRetain(&context_, gpu_), "opening the GPU");
  const Use ours(*this);
  for (CUstream* stream : {&compute_, &in_, &out_, &aside_})
    check(d.cuStreamCreate(stream, CU_STREAM_NON_BLOCKING), "a stream");
  renew_import_stream();
  runner_ = std::make_unique<Runner>(compute_, aside_);
  copy_ = copy_function(*this);  // fails here without a compiler, rather than at the first operation
}

Backend::Use::Use(const Backend& backend) {
  const Driver& d = driver();
  check(d.cuCtxGetCurrent(&before_), "choosing the GPU");
  if (before_ != backend.context_) check(d.cuCtxSetCurrent(backend.context_), "choosing the GPU");
  changed_ = before_ != backend.context_;
  check(d.cuThreadExchangeStreamCaptureMode(&mode_), "choosing the GPU");
}

Backend::Use::~Use() {
  driver().cuThreadExchangeStreamCaptureMode(&mode_);
  if (changed_) driver().cuCtxSetCurrent(before_);
}

// A forked child lacks the GPU, and the threads that may hold the mutex.
bool Backend::foreign_process() const { return getpid() != process_; }

// ---- memory

void* Backend::allocate(std::size_t bytes) {
  if (foreign_process() || bytes > memory_) return nullptr;
  const Use ours(*this);
  CUdeviceptr data = 0;
  const auto result = driver().cuMemAlloc(&data, bytes);
  if (result != CUDA_SUCCESS && result != CUDA_ERROR_OUT_OF_MEMORY) check(result, "memory");
  return result == CUDA_SUCCESS ? reinterpret_cast<void*>(data) : nullptr;
}

// Commands not launched yet may still use the memory; for launched ones cuMemFree itself waits.
void Backend::free(void* data, std::size_t, std::uint64_t place) {
  if (foreign_process()) return;
  try {
    const Use ours(*this);
    Lock lock(mutex_);
    if (place >= ticket_) submit_locked(lock, true);
    if (place >= ticket_ && !failed_)
      to_free_.push_back(data);
    else
      free_now(data);
  } catch (const Error&) {  // the process exits, and the driver with it
  }
}

void Backend::free_now(void* data) { driver().cuMemFree(address(data)); }

void* Backend::workspace(std::size_t bytes) {
  std::lock_guard lock(functions_mutex_);
  for (auto& [data, size] : workspaces_)
    if (size >= bytes) return data;
  void* const data = allocate(bytes);
  if (!data)
    throw OutOfMemoryError("no memory for " + std::to_string(bytes) + " bytes of a library's workspace on " + name_);
  workspaces_.emplace_back(data, bytes);
  return data;
}

std::int64_t* Backend::cell() {
  std::lock_guard lock(mutex_);
  if (cells_.empty()) {
    void* data = nullptr;
    check(driver().cuMemHostAlloc(&data, kCells * sizeof(std::int64_t), CU_MEMHOSTALLOC_PORTABLE), "pinned memory");
    for (std::size_t i = 0; i < kCells; ++i) cells_.push_back(static_cast<std::int64_t*>(data) + i);
  }
  std::int64_t* const cell = cells_.back();
  cells_.pop_back();
  *cell = Watched::kNothing;
  return cell;
}

void* Backend::take_pinned(Lock& lock, std::size_t bytes) {
  const auto size = pinned_size(bytes);
  auto& unused = pinned_[size];
  if (unused.empty()) poll();
  while (!failed_ && unused.empty() && arriving_.size() >= kMostArriving) {  // bounds pinned memory
    const CUevent oldest = arriving_.front().event;
    lock.unlock();
    driver().cuEventSynchronize(oldest);
    lock.lock();
    poll();
  }
  if (failed_) raise(*failure_);
  if (!unused.empty()) {
    void* const data = unused.back();
    unused.pop_back();
    return data;
  }
  void* data = nullptr;
  check(driver().cuMemHostAlloc(&data, size, CU_MEMHOSTALLOC_PORTABLE), "pinned memory");
  return data;
}

void Backend::refuse_if_failed() {
  if (!failed_) return;
  std::lock_guard lock(mutex_);
  raise(*failure_);
}

void Backend::upload(Storage& to, const void* host) {
  refuse_if_failed();
  const Use ours(*this);
  Lock lock(mutex_);
  wait_for_ticket(lock, in_, to.ticket);
  for (std::size_t at = 0; at < to.bytes; at += kMostInBatch) {
    const auto bytes = std::min(kMostInBatch, to.bytes - at);
    void* const pinned = take_pinned(lock, bytes);
    lock.unlock();
    std::memcpy(pinned, static_cast<const std::byte*>(host) + at, bytes);
    lock.lock();
    const auto result = driver().cuMemcpyHtoDAsync(address(to.data) + at, pinned, bytes, in_);
    if (result != CUDA_SUCCESS) pinned_[pinned_size(bytes)].push_back(pinned);
    check(result, "a copy to the GPU");
    const CUevent event = record(in_);
    to.arrival = ++arrival_;
    arriving_.push_back({to.arrival, event, pinned, pinned_size(bytes), {}});
  }
  to.ticket = 0;
  forget_finished(lock);
}

// While one part arrives in pinned memory, copies the previous one to `host`.
void Backend::download(void* host, const Storage& from, std::size_t offset, std::size_t bytes) {
  if (bytes == 0) return;
  refuse_if_failed();
  const Use ours(*this);
  Lock lock(mutex_);
  wait_for_ticket(lock, out_, from.ticket);
  if (const auto failed = failure_of(from)) raise(*failed);
  wait_for_arrival(out_, from.arrival);
  struct Part {
    std::size_t at, bytes;
    void* pinned = nullptr;
    CUevent event = nullptr;
  };
  const auto take = [&](const Part& part) {
    lock.unlock();
    const auto result = driver().cuEventSynchronize(part.event);
    if (result == CUDA_SUCCESS) std::memcpy(static_cast<std::byte*>(host) + part.at, part.pinned, part.bytes);
    lock.lock();
    events_.push_back(part.event);
    pinned_[pinned_size(part.bytes)].push_back(part.pinned);
    check(result, "a copy from the GPU");
  };
  std::optional<Part> before;
  for (std::size_t at = 0; at < bytes; at += kMostInBatch) {
    Part part{at, std::min(kMostInBatch, bytes - at)};
    part.pinned = take_pinned(lock, part.bytes);
    check(driver().cuMemcpyDtoHAsync(part.pinned, address(from.data) + offset + at, part.bytes, out_),
          "a copy from the GPU");
    part.event = record(out_);
    if (before) take(*before);
    before = part;
  }
  take(*before);
  poll();
  if (const auto failed = failure_of(from)) raise(*failed);
}

// ---- tasks to commands

void Backend::launch(Task& task, Launch& launch) {
  refuse_if_failed();
  const Use ours(*this);
  if (task.op && task.op->copies_in) return copy_in(task);
  if (task.op && task.op->joins_devices) return all_reduce(task);
  Emit emit(*this, task.name, task.source, &launch);
  if (task.op) launch_kernel(task, launch, emit);
  else if (!task.segments.empty()) emit_segments(task, emit);
  else emit.program(*task.before, addresses_of<const void*>(task.inputs), addresses_of<void*>(task.outputs));
  append(std::move(emit.commands_), std::move(emit.watched_), task);
  if (task.traced) trace(task, launch);
}

// Of the segments that are wanted: the results of others have no memory.
void Backend::emit_segments(Task& task, Emit& emit) {
  std::vector<Emit::Side> programs;
  for (std::size_t s = 0; s < task.segments.size(); ++s) {
    const auto [program, operands, results] = segment(task, s);
    if (results.front().array.data)
      programs.push_back({program, addresses_of<const void*>(operands), addresses_of<void*>(results)});
  }
  emit.programs(std::move(programs));
}

void Backend::launch_kernel(Task& task, Launch& launch, Emit& emit) {
  const Kernel* const kernel = find_kernel(*task.op);
  if (!kernel) throw DeviceError(std::string(task.op->name) + " has no kernel for GPUs; compute it on a CPU device");
  const TaskSides sides = sides_of(task);
  if (task.before) launch.operands.push_back(emit_before(task, *kernel, launch, emit));
  for (const auto& in : sides.kernel_inputs) launch.operands.push_back(in.array);
  for (const int at : task.kernel_outputs)
    launch.results.push_back(at < 0 ? ArrayRef{} : task.outputs[static_cast<std::size_t>(at)].array);
  Args args{launch.operands, sides.outputs.back().array, task.params.get(), launch.results};
  Emit::Side after{task.after.get(), {}, {}};
  if (task.after) {  // the kernel's result has the program's shape
    args.out.dtype = task.after->inputs[0].dtype;
    args.out.data = nullptr;
    after.in = addresses_of<const void*>(sides.after_inputs);
    after.out = addresses_of<void*>(sides.outputs);
    if (!kernel->stores) {
      args.out.data = task.kernel_output >= 0 ? task.outputs[static_cast<std::size_t>(task.kernel_output)].array.data
                                              : launch.scratch(args.out.nbytes());
      after.in.insert(after.in.begin(), args.out.data);
    }
    if (kernel->stores || kernel->finishes) emit.after_ = std::exchange(after, {});
  }
  emit.args_ = &args;
  if (args.out.shape.size() > 0) kernel->emit(args, emit);
  if (after.program) emit.program(*after.program, std::move(after.in), std::move(after.out));
}

// Emits the program before a kernel, as part of its launches or as one of its own. Returns the kernel's operand.
ArrayRef Backend::emit_before(const Task& task, const Kernel& kernel, Launch& launch, Emit& emit) {
  const Program& before = *task.before;
  const TaskSides sides = sides_of(task);
  auto read = addresses_of<const void*>(sides.before_inputs);
  auto written = addresses_of<void*>(sides.before_outputs);
  ArrayRef operand{nullptr, before.shape, before.shape.dense_strides(), before.outputs.back().dtype, true};
  // A kernel that reads its operand several times must not read an input whose memory a result has taken over.
  if (kernel.loads && (kernel.loads_once || written.empty())) {
    emit.before_ = {&before, std::move(read), std::move(written)};
  } else {
    operand.data = launch.scratch(operand.nbytes());
    written.push_back(operand.data);
    emit.program(before, std::move(read), std::move(written));
  }
  return operand;
}

void Backend::append(std::vector<Command> commands, std::vector<Watched> watched, Task& task) {
  std::uint64_t arrival = 0;
  for (auto& in : task.inputs)
    if (in.storage->device == device_) arrival = std::max(arrival, in.storage->arrival);
  for (auto& out : task.outputs) arrival = std::max(arrival, out.storage->arrival);  // inherited with its memory
  if (arrival > arrived_) require_arrival(arrival);
  if (settings().log_run)
    for (const auto& c : commands) log_line("gpu " + std::to_string(index_) + ": " + c.op + ": " + c.text());
  Lock lock(mutex_);
  Ordered ordered{0, task.name, task.source, task.sequence, {}};
  for (auto& in : task.inputs) {
    if (in.storage->device != device_ || in.storage->token) continue;
    if ((task.failure = failure_of(*in.storage))) {  // it failed after this task had started
      for (const Watched& each : watched) cells_.push_back(each.cell);
      return;
    }
    if (in.storage->order != 0) ordered.reads.push_back(in.storage->order);
  }
  ordered.order = collect(std::move(commands));
  for (Watched& each : watched) checks_.push_back({each.cell, std::move(each.message), place(), ordered.order});
  for (auto& out : task.outputs) {
    out.storage->ticket = place();
    out.storage->order = ordered.order;
  }
  ordered_.push_back(std::move(ordered));
  if (list_.size() >= kMostInList) submit_locked(lock);
}

std::uint64_t Backend::collect(std::vector<Command> commands) {
  ++orders_;
  for (auto& c : commands) c.order = orders_;
  list_.insert(list_.end(), std::make_move_iterator(commands.begin()), std::make_move_iterator(commands.end()));
  if (!list_.empty()) place_ = ticket_.load();
  return orders_;
}

void Backend::clear(void* data, std::size_t bytes) {
  const Use ours(*this);
  Emit emit(*this, "clear", {}, nullptr);
  emit.clear(data, bytes);
  Lock lock(mutex_);
  collect(std::move(emit.commands_));
}

// Copies a value from another device, concurrently with this device's work.
void Backend::copy_in(Task& task) {
  const TaskOperand& from = task.inputs[0];
  Storage& to = *task.outputs[0].storage;
  if (to.bytes == 0) return;
  if (from.storage->device->backend->host_readable())
    upload(to, from.array.data);
  else
    copy_from_gpu(to, from, to.bytes);
  if (settings().log_run)
    log_line("gpu " + std::to_string(index_) + ": " + task.name + ": copy of " + std::to_string(to.bytes) +
             " bytes from device " + std::to_string(from.storage->device->id));
}

// Enables direct copies from the other GPU if possible; otherwise CUDA copies through the host.
void Backend::reach(Backend& other) {
  int direct = 0;
  if (other.context_ == context_ || !reached_.insert(&other).second) return;
  if (driver().cuDeviceCanAccessPeer(&direct, gpu_, other.gpu_) == CUDA_SUCCESS && direct)
    driver().cuCtxEnablePeerAccess(other.context_, 0);  // already enabled is not an error
}

void Backend::copy_from_gpu(Storage& to, const TaskOperand& from, std::size_t bytes) {
  auto& other = static_cast<Backend&>(*from.storage->device->backend);
  CUevent there = nullptr;
  {
    const Use its(other);
    Lock lock(other.mutex_);
    other.submit_locked(lock);
    other.settle_checks_of(lock, *from.storage);
    if (const auto failed = other.failure_of(*from.storage)) raise(*failed);
    if (from.storage->ticket > other.done_ || from.storage->arrival > other.arrived_) {
      other.wait_for_arrival(other.compute_, from.storage->arrival);
      there = other.record(other.compute_);
    }
  }
  {
    const Use ours(*this);
    Lock lock(mutex_);
    reach(other);
    wait_for_ticket(lock, in_, to.ticket);
    if (there) check(driver().cuStreamWaitEvent(in_, there, 0), "a copy between GPUs");
    check(driver().cuMemcpyPeerAsync(address(to.data), context_, address(from.array.data), other.context_, bytes, in_),
          "a copy between GPUs");
    const CUevent event = record(in_);
    to.arrival = ++arrival_;
    to.ticket = 0;
    arriving_.push_back({to.arrival, event, nullptr, 0, from.storage});
    forget_finished(lock);
  }
  if (!there) return;
  Lock lock(other.mutex_);
  other.events_.push_back(there);
}

// ---- streams, with the mutex held

CUevent Backend::record(CUstream stream) {
  CUevent event = nullptr;
  if (!events_.empty()) {
    event = events_.back();
    events_.pop_back();
  } else {
    check(driver().cuEventCreate(&event, CU_EVENT_DISABLE_TIMING), "an event");
  }
  check(driver().cuEventRecord(event, stream), "an event");
  return event;
}

CUevent Backend::event_of(const std::deque<Pending>& pending, std::uint64_t number) const {
  if (pending.empty() || number < pending.front().number) return nullptr;
  return pending[static_cast<std::size_t>(number - pending.front().number)].event;
}

void Backend::wait_for_ticket(Lock& lock, CUstream stream, std::uint64_t ticket) {
  if (ticket <= done_) return;
  if (ticket >= ticket_) submit_locked(lock);
  if (const CUevent event = event_of(submitted_, std::min(ticket, ticket_ - 1)))
    check(driver().cuStreamWaitEvent(stream, event, 0), "waiting for the GPU");
}

void Backend::wait_for_arrival(CUstream stream, std::uint64_t arrival) {
  if (arrival <= arrived_) return;
  if (const CUevent event = event_of(arriving_, arrival))
    check(driver().cuStreamWaitEvent(stream, event, 0), "waiting for a copy");
}

void Backend::require_arrival(std::uint64_t arrival) {
  auto known = expected_.load();
  while (known < arrival && !expected_.compare_exchange_weak(known, arrival)) {
  }
}

void Backend::poll(std::deque<Pending>& pending, std::atomic<std::uint64_t>& done) {
  while (!pending.empty()) {
    Pending& first = pending.front();
    const auto result = driver().cuEventQuery(first.event);
    if (result == CUDA_ERROR_NOT_READY || is_about_capture(result)) return;
    if (result != CUDA_SUCCESS) return fail(text_of(result), nullptr);
    if (&pending == &submitted_) settle_checks(first.number);  // before any thread can take the values for good
    done = first.number;
    launches_ -= first.launches;
    events_.push_back(first.event);
    if (first.pinned) pinned_[first.pinned_bytes].push_back(first.pinned);
    if (first.source) finished_.push_back(std::move(first.source));
    pending.pop_front();
  }
}

void Backend::poll() {
  if (failed_) return;
  poll(arriving_, arrived_);
  poll(submitted_, done_);
}

// Releases finished storages without the lock: their memory's device may take its own locks.
void Backend::forget_finished(Lock& lock) {
  if (finished_.empty()) return;
  auto finished = std::move(finished_);
  finished_.clear();
  lock.unlock();
  finished.clear();
  lock.lock();
}

void Backend::fail(const std::string& what, const Command* command) {
  if (failed_) return;
  failure_ = make_failure<DeviceError>(
      name_ + " failed" + (command ? std::string(" at ") + command->op : std::string()) + ": " + what +
               "; nothing more can be computed on device " + std::to_string(device_->id) +
               " in this process, and what was not copied from it is lost. CUDA reports a fault some time after it "
               "happened: `compute-sanitizer` run on the program finds the place",
      command ? command->op : "", command ? command->source : Source{}, 0);
  failed_ = true;
  list_.clear();
  ordered_.clear();
  checks_.clear();
  checked_.clear();
  for (auto& r : returned_) finished_.push_back(std::move(r.storage));
  returned_.clear();
  for (auto& due : std::exchange(dues_, {})) due->call();
}

bool Backend::is_lost() const { return is_sticky(driver().cuStreamQuery(compute_)); }

bool Backend::launch_list() {
  if (list_.empty() && !joined_) return true;
  auto list = std::exchange(list_, {});
  std::size_t at = 0;
  try {
    if (const auto expected = expected_.load(); expected > awaited_) {
      wait_for_arrival(compute_, expected);
      awaited_ = expected;
    }
    // With a limit, graphs must not allocate beyond it.
    const Runner::Functions functions{
        copy_, [](void* self, std::size_t bytes) { return static_cast<Backend*>(self)->allocate(bytes); },
        [](void* self, void* data) { static_cast<Backend*>(self)->free_now(data); }, this};
    if (partly_)
      runner_->run_plain(list, at);
    else
      runner_->run(list, functions, device_->allocator.limit() == 0, at);
    submitted_.push_back({ticket_, record(compute_), nullptr, 0, {}, runner_->launched()});
  } catch (const Error& e) {
    if (is_lost()) return fail(e.what(), list.empty() ? nullptr : &list[std::min(at, list.size() - 1)]), true;
    list_.assign(std::make_move_iterator(list.begin() + static_cast<std::ptrdiff_t>(at)),
                 std::make_move_iterator(list.end()));
    if (at > 0) partly_ = true, emptied_ = false;
    joined_ = true;
    error_ = e.what();
    lacks_memory_ = dynamic_cast<const OutOfMemoryError*>(&e) != nullptr;
    return false;
  }
  launches_ += runner_->launched();
  ++ticket_;
  if (!checks_.empty()) std::ranges::move(ordered_, std::back_inserter(checked_));
  ordered_.clear();
  partly_ = joined_ = emptied_ = false;
  for (void* data : std::exchange(to_free_, {})) free_now(data);
  return true;
}

// Fails the values of the first command's task, and those of later tasks that read them.
void Backend::drop_failed() {
  if (list_.empty()) return fail(error_, nullptr);  // no command caused it
  const auto first = std::ranges::find(ordered_, list_.front().order, &Ordered::order);
  const Command& command = list_.front();
  const auto sequence = first == ordered_.end() ? 0 : first->sequence;
  const auto message = std::string(command.op) + " failed on " + name_ + ": " + error_;
  const auto failure = lacks_memory_ ? make_failure<OutOfMemoryError>(message, command.op, command.source, sequence)
                                     : make_failure<DeviceError>(message, command.op, command.source, sequence);
  const auto lost = fail_values(list_.front().order, failure);
  std::erase_if(list_, [&](const Command& c) { return lost.contains(c.order); });
  emptied_ = false;
}

std::set<std::uint64_t> Backend::fail_values(std::uint64_t order, const std::shared_ptr<const Failure>& failure) {
  std::set<std::uint64_t> lost{order};
  const auto fail_readers = [&](const auto& tasks) {
    for (const Ordered& task : tasks) {
      const bool reads_lost = std::ranges::any_of(task.reads, [&](auto read) { return lost.contains(read); });
      if (task.order != order && !reads_lost) continue;
      lost.insert(task.order);
      if (failed_values_.emplace(task.order, failure).second) unreported_.push_back(task.order);
    }
  };
  fail_readers(checked_);
  fail_readers(ordered_);
  any_failed_ = true;
  return lost;
}

void Backend::settle_checks(std::uint64_t ticket) {
  for (; !checks_.empty() && checks_.front().ticket <= ticket; checks_.pop_front()) {
    const Check& check = checks_.front();
    cells_.push_back(check.cell);
    if (*check.cell == Watched::kNothing) continue;
    const auto task = std::ranges::find(checked_, check.order, &Ordered::order);
    if (task == checked_.end()) continue;
    fail_values(check.order,
                make_failure<IndexError>(check.message(*check.cell), task->op, task->source, task->sequence));
  }
  while (!checked_.empty() && (checks_.empty() || checked_.front().order < checks_.front().order)) checked_.pop_front();
}

// Where no wait for the value follows.
void Backend::settle_checks_of(Lock& lock, const Storage& value) {
  if (checks_.empty() || value.order < checks_.front().order) return;
  if (value.ticket >= ticket_) submit_locked(lock);
  if (const CUevent event = event_of(submitted_, std::min(value.ticket, ticket_ - 1))) {
    lock.unlock();
    driver().cuEventSynchronize(event);
    lock.lock();
    poll();
  }
}

void Backend::submit_locked(Lock& lock, bool for_allocator) {
  const auto empty_cache = [&] {
    lock.unlock();
    device_->allocator.empty_cache();
    lock.lock();
  };
  poll();
  while (!failed_ && !launch_list()) {
    if (for_allocator) return;
    if (emptied_) {
      drop_failed();
    } else {
      empty_cache();
      emptied_ = true;
    }
  }
  if (for_allocator) return;
  if (runner_->lacked_memory()) empty_cache();
  while ((submitted_.size() > kMostInFlight || launches_ > kMostLaunches) && !submitted_.empty() && !failed_) {
    const CUevent oldest = submitted_.front().event;
    lock.unlock();
    driver().cuEventSynchronize(oldest);
    lock.lock();
    poll();
  }
}

void Backend::submit() {
  if (foreign_process()) return;
  Lock lock(mutex_);
  try {
    const Use ours(*this);
    if (!returned_.empty()) settle_returned(lock);
    submit_locked(lock);
  } catch (const Error& e) {  // the driver has shut down
    fail(e.what(), nullptr);
  }
  forget_finished(lock);
}

// ---- waiting

const KernelTraits& Backend::traits(const OpRecord& op) const { return traits_of(op); }

double Backend::program_cost_ns(const Program& program) const {
  double bytes = 0, operations = 0;
  for (const auto& i : program.inputs) bytes += static_cast<double>(itemsize(i.dtype));
  for (const auto& o : program.outputs) bytes += static_cast<double>(itemsize(o.dtype));
  for (const auto& i : program.instructions)
    operations += elementwise_ops::All::infos[i.code].cost * (i.dtype == DType::kFloat64 ? cost::kFloat64 : 1);
  return cost::kLaunchNs + static_cast<double>(program.shape.size()) *
                               std::max(bytes / cost::kBytesPerNs, operations / cost::kOperationsPerNs);
}

double Backend::kernel_cost_ns(double operations) const {
  return cost::kLaunchNs + operations / cost::kOperationsPerNs;
}

double Backend::long_kernel_ns() const { return cost::kLongKernelNs; }

bool Backend::has_all_reduce() const { return nccl() != nullptr; }

// Never called: the recorder makes views of this memory dense before the host reads them.
void Backend::download_strided(void*, const Storage&, std::size_t, const Shape&, const Strides&, DType) {
  throw Error("internal error: a strided view of a GPU's memory is not read by the host");
}

bool Backend::is_complete(const Storage& storage) {
  const auto is_there = [&] { return failed_ || (storage.ticket <= done_ && storage.arrival <= arrived_); };
  if (is_there() || foreign_process()) return true;
  const Use ours(*this);
  Lock lock(mutex_);
  poll();
  return is_there();
}

bool Backend::synchronize(const Storage* storage, const std::function<bool()>& go_on) {
  if (foreign_process()) return true;
  const Use ours(*this);
  std::uint64_t ticket, arrival;
  // The worker submits complete batches, so that lists repeat exactly: give it a moment for that.
  const auto begun = std::chrono::steady_clock::now();
  while (storage && storage->ticket >= ticket_ && std::chrono::steady_clock::now() - begun < kPatience)
    std::this_thread::yield();
  {
    Lock lock(mutex_);
    if (!storage || storage->ticket >= ticket_) submit_locked(lock);
    ticket = storage ? storage->ticket : ticket_ - 1;
    arrival = storage ? storage->arrival : arrival_.load();
  }
  const auto looked = std::chrono::steady_clock::now();
  while (true) {
    {
      Lock lock(mutex_);
      poll();
      if (!returned_.empty()) settle_returned(lock);
      forget_finished(lock);
    }
    if (failed_ || (ticket <= done_ && arrival <= arrived_)) return true;
    if (std::chrono::steady_clock::now() - looked < kSpun)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(kNap);
    if (!go_on()) return false;
  }
}

std::shared_ptr<const Failure> Backend::failure_of(const Storage& value) const {
  if (failed_values_.empty()) return nullptr;
  const auto found = failed_values_.find(value.order);
  return found == failed_values_.end() ? nullptr : found->second;
}

std::shared_ptr<const Failure> Backend::failure(const Storage* value) {
  if (!failed_ && !any_failed_) return nullptr;
  std::vector<std::uint64_t> orders;
  {
    std::lock_guard lock(mutex_);
    if (failed_) return failure_;
    if (value) return failure_of(*value);
    orders = std::exchange(unreported_, {});
  }
  std::shared_ptr<const Failure> first;
  for (const auto order : orders) {  // the earliest first
    if (!device_->allocator.holds([&](const Storage& s) { return s.order == order; })) continue;
    std::lock_guard lock(mutex_);
    auto& failure = failed_values_[order];
    if (!first) first = failure;
    else if (failure != first) unreported_.push_back(order);
  }
  return first;
}

// ---- exchange

std::uintptr_t Backend::stream() {
  submit();
  return reinterpret_cast<std::uintptr_t>(compute_);
}

// Not in_ itself: a stream that waits for captured work becomes part of the capture.
void Backend::renew_import_stream() {
  const Use ours(*this);
  CUstream made = nullptr;
  check(driver().cuStreamCreate(&made, CU_STREAM_NON_BLOCKING), "a stream");
  import_stream_ = made;
}

// An arrival without a copy.
void Backend::receive(Storage& storage) {
  const Use ours(*this);
  Lock lock(mutex_);
  const CUevent brought = record(import_stream_);
  events_.push_back(brought);
  check(driver().cuStreamWaitEvent(in_, brought, 0), "waiting for another library");
  const CUevent event = record(in_);
  storage.arrival = ++arrival_;
  arriving_.push_back({storage.arrival, event, nullptr, 0, {}});
}

bool Backend::is_capturing(std::uintptr_t stream) {
  const Use ours(*this);
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  const auto result = driver().cuStreamIsCapturing(reinterpret_cast<CUstream>(stream), &status);
  return result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT || status != CU_STREAM_CAPTURE_STATUS_NONE;
}

std::uint64_t Backend::export_to_stream(const Storage& storage, std::uintptr_t stream) {
  const Use ours(*this);
  Lock lock(mutex_);
  const auto other = reinterpret_cast<CUstream>(stream);
  wait_for_ticket(lock, other, storage.ticket);
  settle_checks_of(lock, storage);
  if (const auto failed = failure_of(storage)) raise(*failed);
  wait_for_arrival(other, storage.arrival);
  unsigned long long number = 0;
  check(driver().cuStreamGetId(other, &number), "another library's stream");
  return number;
}

void Backend::join_stream(const Ref<Storage>& storage, std::uintptr_t stream, std::uint64_t number) {
  if (foreign_process()) return;
  const Use ours(*this);
  Lock lock(mutex_);
  returned_.push_back({storage, reinterpret_cast<CUstream>(stream), number});
  settle_returned(lock);
  forget_finished(lock);
}

// Makes later work wait for the present work of these streams. If a stream no longer exists, or its handle names
// another (a thread's default stream, on another thread), waits for all of the GPU's work. Postpones a stream that
// captures: an event on it would draw owl's work into that graph.
void Backend::settle_returned(Lock& lock) {
  submit_locked(lock);
  std::vector<Returned> kept, gone;
  for (Returned& r : std::exchange(returned_, {})) {
    unsigned long long number = 0;
    if (driver().cuStreamGetId(r.stream, &number) != CUDA_SUCCESS || number != r.number)
      gone.push_back(std::move(r));
    else if (is_capturing(reinterpret_cast<std::uintptr_t>(r.stream)))
      kept.push_back(std::move(r));
    else if (join(r.stream))
      finished_.push_back(std::move(r.storage));
    else
      gone.push_back(std::move(r));
  }
  if (!gone.empty()) {
    lock.unlock();
    const bool refused = is_about_capture(driver().cuCtxSynchronize());
    lock.lock();
    for (Returned& r : gone)
      refused ? kept.push_back(std::move(r)) : finished_.push_back(std::move(r.storage));
  }
  std::ranges::move(kept, std::back_inserter(returned_));
}

bool Backend::join(CUstream stream) {
  try {
    const CUevent event = record(stream);
    events_.push_back(event);
    for (const CUstream own : {compute_, in_})
      check(driver().cuStreamWaitEvent(own, event, 0), "waiting for another library");
  } catch (const Error&) {
    return false;
  }
  joined_ = true;
  return true;
}

// The driver calls back, so that no thread waits; on a separate stream, because the callback blocks its stream.
void Backend::when_through(void (*function)(void*), void* data) {
  if (foreign_process() || failed_) return function(data);
  const Use ours(*this);
  Lock lock(mutex_);
  submit_locked(lock);
  const CUevent event = event_of(submitted_, ticket_ - 1);
  if (!event || failed_) return function(data);
  std::erase_if(dues_, [](const auto& due) { return due->called.load(); });
  const auto due = std::make_shared<Due>(function, data);
  const auto call = [](void* p) {
    const std::unique_ptr<std::shared_ptr<Due>> own(static_cast<std::shared_ptr<Due>*>(p));
    (*own)->call();
  };
  auto held = std::make_unique<std::shared_ptr<Due>>(due);
  check(driver().cuStreamWaitEvent(aside_, event, 0), "waiting for the GPU");
  check(driver().cuLaunchHostFunc(aside_, call, held.get()), "waiting for the GPU");
  (void)held.release();
  dues_.push_back(due);
}

// ---- functions and calls

// The driver and the libraries allocate memory, which owl's cache may hold: on failure empties the cache and tries
// again.
template <class Make> auto Backend::with_room(const Make& make) {
  try {
    return make();
  } catch (const Error&) {
    if (!device_ || is_lost()) throw;
  }
  device_->allocator.empty_cache();
  return make();
}

CUfunction Backend::function(const std::string& key, const char* name, const std::function<std::string()>& text) {
  std::lock_guard lock(functions_mutex_);
  auto& function = functions_[key];
  if (function) return function;
  const auto code = compile(text(), arch_);
  const CUmodule module = with_room([&] {
    CUmodule loaded = nullptr;
    check(driver().cuModuleLoadData(&loaded, code.data()), "loading a kernel");
    return loaded;
  });
  check(driver().cuModuleGetFunction(&function, module, name), "loading a kernel");
  return function;
}

const LibraryCall& Backend::library_call(const std::string& key,
                                         const std::function<std::unique_ptr<LibraryCall>()>& make) {
  {
    std::lock_guard lock(functions_mutex_);
    if (const auto found = calls_.find(key); found != calls_.end()) return *found->second;
  }
  auto call = with_room(make);  // for handles, descriptors and a workspace
  std::lock_guard lock(functions_mutex_);
  return *calls_.emplace(key, std::move(call)).first->second;
}

cublasLtHandle_t Backend::cublas_handle() {
  std::lock_guard lock(functions_mutex_);
  if (!cublas_) check(cublas().cublasLtCreate(&cublas_), "opening cuBLASLt");
  return cublas_;
}

cudnnHandle_t Backend::cudnn_handle(bool planning) {
  std::lock_guard lock(functions_mutex_);
  auto& handle = planning ? cudnn_planning_ : cudnn_;
  if (!handle) check(cudnn().cudnnCreate(&handle), "opening cuDNN");
  return handle;
}

// ---- detecting NaN and infinity (owl::trace_nan)

namespace {

// A copy of the task in host memory.
struct Shadow {
  Task task;
  Task& original;
  std::vector<std::vector<std::byte>> memory;

  Shadow(Backend& backend, Task& task) : original(task) {
    const auto bring = [&](const TaskOperand& from, std::size_t begin, std::size_t bytes) {
      auto& host = memory.emplace_back(bytes);  // zeros, which replace an operand that failed
      if (from.storage->data) backend.download(host.data(), *from.storage, begin, bytes);
      return host.data();
    };
    for (const auto& in : task.inputs) {
      TaskOperand& copy = this->task.inputs.emplace_back(in);
      copy.array.data = bring(in, 0, in.storage->bytes) + (task.op ? 0 : in.byte_offset());
      if (!task.op || in.array.dense) continue;
      copy.array.shape = Shape{static_cast<std::int64_t>(in.storage->bytes / itemsize(in.array.dtype))};
      copy.array.dense = true;  // a kernel's operand is checked as a whole
    }
    for (const auto& out : task.outputs) {
      TaskOperand& copy = this->task.outputs.emplace_back(out);
      copy.array.data = bring(out, 0, out.storage->bytes);
    }
    this->task.op = task.op;
    this->task.name = task.name;
    this->task.source = task.source;
    this->task.params = task.params;
  }
};

void run_on_host(Launch& launch) {
  for (const auto& stage : launch.stages)
    for (std::int64_t chunk = 0; chunk < stage.chunks; ++chunk) stage.body(chunk);
  for (auto& [data, bytes] : launch.scratch_blocks) launch.device->allocator.free(data, bytes);
}

}  // namespace

// The CPU's interpreter runs a program again, instruction by instruction, with the same bits. Of a kernel, only the
// result is checked.
void Backend::trace(Task& task, Launch& launch) {
  launch.stage(1, [this, &task](std::int64_t) {
    Shadow shadow(*this, task);
    Launch host;
    host.device = &sink().device(0);
    if (task.op) {
      cpu::watch_kernel(shadow.task, host);
      return run_on_host(host);
    }
    cpu::NanWatch watch(*task.before);
    cpu::launch_program(*task.before, addresses_of<const void*>(shadow.task.inputs),
                        addresses_of<void*>(shadow.task.outputs), host, &watch);
    run_on_host(host);
    watch.report(task);
  });
}

}  // namespace owl::cuda
