// A GPU's memory shared with other libraries, on streams of their own.
#include <algorithm>

#include "backend/cuda/backend.h"
#include "owl/error.h"

namespace owl::cuda {

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

}  // namespace owl::cuda
