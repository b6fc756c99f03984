// A GPU's memory, and copies between it and the host.
#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/cuda/backend.h"
#include "backend/cuda/emit.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

constexpr std::size_t kMostInBatch = 8 << 20;  // bytes of pinned memory of one copy
constexpr std::size_t kCells = 512;            // allocated together
constexpr std::size_t kMostArriving = 32;      // copies into the device by which a script may run ahead

// Pinned memory comes in sizes of a power of two.
std::size_t pinned_size(std::size_t bytes) { return std::bit_ceil(std::max<std::size_t>(bytes, 4096)); }

}  // namespace

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

// Never called: the recorder makes views of this memory dense before the host reads them.
void Backend::download_strided(void*, const Storage&, std::size_t, const Shape&, const Strides&, DType) {
  throw Error("internal error: a strided view of a GPU's memory is not read by the host");
}

}  // namespace owl::cuda
