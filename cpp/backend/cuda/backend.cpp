#include "backend/cuda/backend.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "backend/cpu/nan_watch.h"
#include "backend/cpu/tile.h"
#include "backend/cuda/compiler.h"
#include "base/env.h"
#include "owl/error.h"
#include "runtime/engine.h"

namespace owl::cuda {

namespace {

constexpr std::size_t kMostInFlight = 64;      // lists that the worker may run ahead of the GPU
constexpr std::size_t kMostInList = 512;       // commands
constexpr std::size_t kMostInBatch = 8 << 20;  // bytes of pinned memory that are copied in one go
constexpr std::size_t kMostArriving = 32;      // copies into the device that a script may run ahead
constexpr int kSpins = 200;                    // of about a microsecond
constexpr auto kNap = std::chrono::microseconds(20), kPatience = std::chrono::microseconds(300);

// Pinned memory comes in sizes of a power of two.
std::size_t pinned_size(std::size_t bytes) { return std::bit_ceil(std::max<std::size_t>(bytes, 4096)); }

CUdeviceptr address(const void* data) { return reinterpret_cast<CUdeviceptr>(data); }

}  // namespace

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
  if (major < 7)
    throw DeviceError(name_ + " has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
                      "; owl needs 7.0 or newer");
  nvrtc();  // an error now rather than at the first operation
  check(d.cuDevicePrimaryCtxRetain(&context_, gpu_), "opening the GPU");
  const Use ours(*this);
  for (CUstream* stream : {&compute_, &in_, &out_}) check(d.cuStreamCreate(stream, CU_STREAM_NON_BLOCKING), "a stream");
  runner_ = std::make_unique<Runner>(compute_);
}

Backend::Use::Use(const Backend& backend) {
  check(driver().cuCtxGetCurrent(&before_), "choosing the GPU");
  if (before_ != backend.context_) check(driver().cuCtxSetCurrent(backend.context_), "choosing the GPU");
  changed_ = before_ != backend.context_;
}

Backend::Use::~Use() {
  if (changed_) driver().cuCtxSetCurrent(before_);
}

// A forked child has neither the GPU nor the threads that may hold the mutex.
bool Backend::foreign_process() const { return getpid() != process_; }

// ---- memory

void* Backend::allocate(std::size_t bytes) {
  if (foreign_process()) return nullptr;
  const Use ours(*this);
  CUdeviceptr data = 0;
  const auto result = driver().cuMemAlloc(&data, bytes);
  if (result != CUDA_SUCCESS && result != CUDA_ERROR_OUT_OF_MEMORY) check(result, "memory");
  return result == CUDA_SUCCESS ? reinterpret_cast<void*>(data) : nullptr;
}

// What was collected may still use it; cuMemFree itself waits for what runs.
void Backend::free(void* data, std::size_t) {
  if (foreign_process()) return;
  try {
    const Use ours(*this);
    Lock lock(mutex_);
    submit_locked(lock);
    driver().cuMemFree(address(data));
  } catch (const DeviceError&) {  // the driver goes: the process ends
  }
}

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

void* Backend::take_pinned(Lock& lock, std::size_t bytes) {
  const auto size = pinned_size(bytes);
  auto& unused = pinned_[size];
  if (unused.empty()) poll();
  while (unused.empty() && arriving_.size() >= kMostArriving) {  // so that pinned memory stays bounded
    const CUevent oldest = arriving_.front().event;
    lock.unlock();
    driver().cuEventSynchronize(oldest);
    lock.lock();
    poll();
  }
  if (!unused.empty()) {
    void* const data = unused.back();
    unused.pop_back();
    return data;
  }
  void* data = nullptr;
  check(driver().cuMemHostAlloc(&data, size, CU_MEMHOSTALLOC_PORTABLE), "pinned memory");
  return data;
}

void Backend::upload(Storage& to, const void* host) {
  const Use ours(*this);
  Lock lock(mutex_);
  wait_for_ticket(lock, in_, to.ticket);
  for (std::size_t at = 0; at < to.bytes; at += kMostInBatch) {
    const auto bytes = std::min(kMostInBatch, to.bytes - at);
    void* const pinned = take_pinned(lock, bytes);
    lock.unlock();
    std::memcpy(pinned, static_cast<const std::byte*>(host) + at, bytes);
    lock.lock();
    check(driver().cuMemcpyHtoDAsync(address(to.data) + at, pinned, bytes, in_), "a copy to the GPU");
    const CUevent event = record(in_);
    to.arrival = ++arrival_;
    arriving_.push_back({to.arrival, event, pinned, pinned_size(bytes), {}});
  }
  to.ticket = 0;
  forget_finished(lock);
}

void Backend::download(void* host, const Storage& from, std::size_t offset, std::size_t bytes) {
  if (bytes == 0) return;
  if (auto failed = failure()) throw DeviceError(failed->message);
  const Use ours(*this);
  Lock lock(mutex_);
  wait_for_ticket(lock, out_, from.ticket);
  wait_for_arrival(out_, from.arrival);
  for (std::size_t at = 0; at < bytes; at += kMostInBatch) {
    const auto n = std::min(kMostInBatch, bytes - at);
    void* const pinned = take_pinned(lock, n);
    check(driver().cuMemcpyDtoHAsync(pinned, address(from.data) + offset + at, n, out_), "a copy from the GPU");
    const CUevent event = record(out_);
    lock.unlock();
    const auto result = driver().cuEventSynchronize(event);
    if (result == CUDA_SUCCESS) std::memcpy(static_cast<std::byte*>(host) + at, pinned, n);
    lock.lock();
    events_.push_back(event);
    pinned_[pinned_size(n)].push_back(pinned);
    check(result, "a copy from the GPU");
  }
}

// ---- what a task becomes

void Backend::launch(Task& task, Launch& launch) {
  if (auto failed = failure()) throw DeviceError(failed->message);
  const Use ours(*this);
  if (task.op && task.op->copies_in) return copy_in(task);
  if (task.op && task.op->joins_devices) return all_reduce(task);
  const auto data_of = [](auto& at, std::size_t count, auto& to) {
    for (; count > 0; --count) to.push_back((at++)->array.data);
  };
  auto in = task.inputs.begin();
  auto out = task.outputs.begin();
  Emit emit(*this, task.name, task.source, &launch);
  if (!task.op) {
    std::vector<const void*> read;
    std::vector<void*> written;
    data_of(in, task.inputs.size(), read);
    data_of(out, task.outputs.size(), written);
    emit.program(*task.before, std::move(read), std::move(written));
    append(std::move(emit.commands_), task);
    if (task.traced) trace(task, launch);
    return;
  }
  const Kernel* const kernel = find_kernel(task.op->name);
  if (!kernel) throw DeviceError(std::string(task.op->name) + " has no kernel for GPUs; compute it on a CPU device");
  Args args{{}, {}, task.params.get()};
  if (task.before) {
    const Program& before = *task.before;
    std::vector<const void*> read;
    std::vector<void*> written;
    data_of(in, before.inputs.size(), read);
    data_of(out, before.outputs.size() - 1, written);  // the last is the kernel's operand
    ArrayRef operand{nullptr, before.shape, before.shape.dense_strides(), before.outputs.back().dtype, true};
    // A kernel that looks at its operand several times must not find an input that a result has taken over.
    if (kernel->loads && (kernel->loads_once || written.empty())) {
      emit.before_ = {&before, std::move(read), std::move(written)};
    } else {
      operand.data = launch.scratch(operand.nbytes());
      written.push_back(operand.data);
      emit.program(before, std::move(read), std::move(written));
    }
    launch.operands.push_back(operand);
  }
  for (; in != task.inputs.end() && in->part == TaskPart::kKernel; ++in) launch.operands.push_back(in->array);
  args.in = launch.operands;
  Emit::Side after{task.after.get(), {}, {}};
  if (!task.after) {
    args.out = out->array;
  } else {
    args.out = task.outputs.back().array;  // of the same shape
    args.out.dtype = task.after->inputs[0].dtype;
    args.out.data = nullptr;
    data_of(in, task.after->inputs.size() - 1, after.in);
    data_of(out, task.after->outputs.size(), after.out);
    if (kernel->stores) {
      emit.after_ = std::move(after);
    } else {
      args.out.data = task.kernel_output >= 0 ? task.outputs[static_cast<std::size_t>(task.kernel_output)].array.data
                                              : launch.scratch(args.out.nbytes());
      after.in.insert(after.in.begin(), args.out.data);
    }
  }
  emit.args_ = &args;
  if (args.out.shape.size() > 0) kernel->emit(args, emit);
  if (task.after && !kernel->stores) emit.program(*after.program, std::move(after.in), std::move(after.out));
  append(std::move(emit.commands_), task);
  if (task.traced) trace(task, launch);
}

void Backend::append(std::vector<Command> commands, Task& task) {
  std::uint64_t arrival = 0;
  for (auto& in : task.inputs)
    if (in.storage->device == device_) arrival = std::max(arrival, in.storage->arrival);
  for (auto& out : task.outputs) arrival = std::max(arrival, out.storage->arrival);  // taken over with its memory
  if (arrival > arrived_) expect(arrival);
  if (settings().log_run)
    for (const auto& c : commands) log_line("gpu " + std::to_string(index_) + ": " + c.op + ": " + c.text());
  Lock lock(mutex_);
  collect(std::move(commands));
  for (auto& out : task.outputs) out.storage->ticket = place();
  if (list_.size() >= kMostInList) submit_locked(lock);
}

void Backend::collect(std::vector<Command> commands) {
  list_.insert(list_.end(), std::make_move_iterator(commands.begin()), std::make_move_iterator(commands.end()));
  if (!list_.empty()) place_ = ticket_.load();
}

void Backend::clear(void* data, std::size_t bytes) {
  Emit emit(*this, "clear", {}, nullptr);
  emit.clear(data, bytes);
  Lock lock(mutex_);
  collect(std::move(emit.commands_));
}

// A value from another device, beside this one's work.
void Backend::copy_in(Task& task) {
  const TaskOperand& from = task.inputs[0];
  Storage& to = *task.outputs[0].storage;
  if (to.bytes == 0) return;
  if (from.storage->device->backend->gpu() < 0)
    upload(to, from.array.data);
  else
    copy_from_gpu(to, from, to.bytes);
  if (settings().log_run)
    log_line("gpu " + std::to_string(index_) + ": " + task.name + ": copy of " + std::to_string(to.bytes) +
             " bytes from device " + std::to_string(from.storage->device->id));
}

// From now on copies from there take the direct way, if there is one; without it CUDA goes by way of the host.
void Backend::reach(Backend& other) {
  int direct = 0;
  if (other.context_ == context_ || !reached_.insert(&other).second) return;
  if (driver().cuDeviceCanAccessPeer(&direct, gpu_, other.gpu_) == CUDA_SUCCESS && direct)
    driver().cuCtxEnablePeerAccess(other.context_, 0);  // that it is enabled already is no error
}

void Backend::copy_from_gpu(Storage& to, const TaskOperand& from, std::size_t bytes) {
  auto& other = static_cast<Backend&>(*from.storage->device->backend);
  CUevent there = nullptr;
  {
    const Use its(other);
    Lock lock(other.mutex_);
    other.submit_locked(lock);
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

void Backend::expect(std::uint64_t arrival) {
  auto known = expected_.load();
  while (known < arrival && !expected_.compare_exchange_weak(known, arrival)) {
  }
}

void Backend::poll(std::deque<Pending>& pending, std::atomic<std::uint64_t>& done) {
  while (!pending.empty()) {
    Pending& first = pending.front();
    const auto result = driver().cuEventQuery(first.event);
    if (result == CUDA_ERROR_NOT_READY) return;
    if (result != CUDA_SUCCESS) return fail(text_of(result), nullptr);
    done = first.number;
    events_.push_back(first.event);
    if (first.pinned) pinned_[first.pinned_bytes].push_back(first.pinned);
    if (first.source) finished_.push_back(std::move(first));
    pending.pop_front();
  }
}

void Backend::poll() {
  if (failed_) return;
  poll(arriving_, arrived_);
  poll(submitted_, done_);
}

// Sources of copies may be the last holders of their memory, whose device has locks of its own.
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
  auto f = std::make_shared<Failure>();
  f->kind = Failure::Kind::kDevice;
  f->op = command ? command->op : "";
  if (command) f->source = command->source;
  f->message = name_ + " failed" + (command ? std::string(" at ") + command->op : std::string()) + ": " + what +
               "; nothing more can be computed on device " + std::to_string(device_->id) +
               " in this process, and what was not copied from it is lost. CUDA reports a fault some time after it "
               "happened: `compute-sanitizer` run on the program finds the place";
  failure_ = std::move(f);
  failed_ = true;
}

void Backend::submit_locked(Lock& lock) {
  poll();
  if (failed_) list_.clear();
  const auto list = std::exchange(list_, {});
  if (list.empty()) return;
  std::size_t at = 0;
  try {
    if (const auto expected = expected_.load(); expected > awaited_) {
      wait_for_arrival(compute_, expected);
      awaited_ = expected;
    }
    const Runner::Functions functions{
        [](void* self) { return static_cast<Backend*>(self)->copy_function(); },
        [](void* self, std::size_t bytes) { return static_cast<Backend*>(self)->allocate(bytes); },
        [](void*, void* data) { driver().cuMemFree(address(data)); }, this};
    // With a limit, graphs may not have memory beyond it.
    runner_->run(list, functions, device_->allocator.limit() == 0, at);
    submitted_.push_back({ticket_, record(compute_), nullptr, 0, {}});
  } catch (const DeviceError& e) {
    return fail(e.what(), &list[std::min(at, list.size() - 1)]);
  }
  ++ticket_;
  while (submitted_.size() > kMostInFlight && !failed_) {
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
    submit_locked(lock);
  } catch (const DeviceError& e) {
    fail(e.what(), nullptr);
  }
  forget_finished(lock);
}

// ---- waiting

bool Backend::there(const Storage& storage) {
  const auto is_there = [&] { return failed_ || (storage.ticket <= done_ && storage.arrival <= arrived_); };
  if (is_there() || foreign_process()) return true;
  const Use ours(*this);
  Lock lock(mutex_);
  poll();
  return is_there();
}

bool Backend::wait(const Storage* storage, const std::function<bool()>& go_on) {
  if (foreign_process()) return true;
  const Use ours(*this);
  std::uint64_t ticket, arrival;
  // The worker hands over whole batches, so that lists come again as they were: it is given a moment for that.
  const auto begun = std::chrono::steady_clock::now();
  while (storage && storage->ticket >= ticket_ && std::chrono::steady_clock::now() - begun < kPatience)
    std::this_thread::yield();
  {
    Lock lock(mutex_);
    if (!storage || storage->ticket >= ticket_) submit_locked(lock);
    ticket = storage ? storage->ticket : ticket_ - 1;
    arrival = storage ? storage->arrival : arrival_.load();
  }
  for (int i = 0;; ++i) {
    {
      Lock lock(mutex_);
      poll();
      forget_finished(lock);
    }
    if (failed_ || (ticket <= done_ && arrival <= arrived_)) return true;
    if (i >= kSpins) std::this_thread::sleep_for(kNap);
    if (!go_on()) return false;
  }
}

std::shared_ptr<const Failure> Backend::failure() {
  if (!failed_) return nullptr;
  std::lock_guard lock(mutex_);
  return failure_;
}

// ---- exchange

std::uintptr_t Backend::stream() {
  submit();
  return reinterpret_cast<std::uintptr_t>(compute_);
}

// An arrival without a copy.
void Backend::receive(Storage& storage) {
  const Use ours(*this);
  Lock lock(mutex_);
  const CUevent event = record(in_);
  storage.arrival = ++arrival_;
  arriving_.push_back({storage.arrival, event, nullptr, 0, {}});
}

void Backend::lend(const Storage& storage, std::uintptr_t stream) {
  const Use ours(*this);
  Lock lock(mutex_);
  const auto other = reinterpret_cast<CUstream>(stream);
  wait_for_ticket(lock, other, storage.ticket);
  wait_for_arrival(other, storage.arrival);
}

void Backend::take_back(std::uintptr_t stream) {
  if (foreign_process()) return;
  const Use ours(*this);
  Lock lock(mutex_);
  submit_locked(lock);
  const CUevent event = record(reinterpret_cast<CUstream>(stream));
  check(driver().cuStreamWaitEvent(compute_, event, 0), "waiting for another library");
  check(driver().cuStreamWaitEvent(in_, event, 0), "waiting for another library");
  events_.push_back(event);
}

// ---- functions and calls

CUfunction Backend::function(const std::string& key, const char* name, const std::function<std::string()>& text) {
  std::lock_guard lock(functions_mutex_);
  auto& function = functions_[key];
  if (function) return function;
  const auto code = compile(text(), arch_);
  CUmodule module = nullptr;
  check(driver().cuModuleLoadData(&module, code.data()), "loading a kernel");
  check(driver().cuModuleGetFunction(&function, module, name), "loading a kernel");
  return function;
}

const LibraryCall& Backend::library_call(const std::string& key,
                                         const std::function<std::unique_ptr<LibraryCall>()>& make) {
  {
    std::lock_guard lock(functions_mutex_);
    if (const auto found = calls_.find(key); found != calls_.end()) return *found->second;
  }
  auto call = make();  // may ask for a workspace
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
  if (!handle) {
    check(cudnn().cudnnCreate(&handle), "opening cuDNN");
    check(cudnn().cudnnSetStream(handle, compute_), "opening cuDNN");
  }
  return handle;
}

// ---- looking for NaN and infinity (owl::trace_nan)

namespace {

// The task as it would be on the host, for as long as the shadow lives.
struct Shadow {
  Task task;
  Task& original;
  std::vector<std::vector<std::byte>> memory;

  Shadow(Backend& backend, Task& task) : original(task) {
    const auto bring = [&](const TaskOperand& from, std::size_t begin, std::size_t bytes) {
      auto& host = memory.emplace_back(bytes);  // zeros, which stand in for an operand that failed
      if (from.storage->data) backend.download(host.data(), *from.storage, begin, bytes);
      return host.data();
    };
    for (const auto& in : task.inputs) {
      TaskOperand& copy = this->task.inputs.emplace_back(in);
      copy.array.data = bring(in, 0, in.storage->bytes) + (task.op ? 0 : in.byte_offset());
      if (!task.op || in.array.dense) continue;
      copy.array.shape = Shape{static_cast<std::int64_t>(in.storage->bytes / itemsize(in.array.dtype))};
      copy.array.dense = true;  // a kernel's operand is looked at as a whole
    }
    for (const auto& out : task.outputs) {
      TaskOperand& copy = this->task.outputs.emplace_back(out);
      copy.array.data = bring(out, 0, out.storage->bytes);
    }
    this->task.op = task.op;
    this->task.name = task.name;
    this->task.source = task.source;
    this->task.params = std::move(task.params);
  }
  ~Shadow() { original.params = std::move(task.params); }
};

void run_on_host(Launch& launch) {
  for (const auto& stage : launch.stages)
    for (std::int64_t chunk = 0; chunk < stage.chunks; ++chunk) stage.body(chunk);
  for (auto& [data, bytes] : launch.scratch_blocks) launch.device->allocator.free(data, bytes);
}

}  // namespace

// A program is run again by the CPU's interpreter, instruction by instruction: its bits are the same there. Of a kernel
// the result is looked at.
void Backend::trace(Task& task, Launch& launch) {
  launch.stage(1, [this, &task](std::int64_t) {
    Shadow shadow(*this, task);
    Launch host;
    host.device = &Engine::get().device(0);
    if (task.op) {
      cpu::watch_kernel(shadow.task, host);
      return run_on_host(host);
    }
    std::vector<const void*> in;
    std::vector<void*> out;
    for (auto& operand : shadow.task.inputs) in.push_back(operand.array.data);
    for (auto& operand : shadow.task.outputs) out.push_back(operand.array.data);
    cpu::NanWatch watch(*task.before);
    cpu::launch_program(*task.before, std::move(in), std::move(out), host, &watch);
    run_on_host(host);
    watch.report(task);
  });
}

}  // namespace owl::cuda
