// Waiting for a GPU: for one value or for all work, and the failures that a wait finds.
#include <chrono>
#include <thread>

#include "backend/cuda/backend.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

// A short sleep takes three times as long as requested, so poll for the first kSpun.
constexpr auto kSpun = std::chrono::milliseconds(2);
constexpr auto kNap = std::chrono::microseconds(20), kPatience = std::chrono::microseconds(300);

}  // namespace

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

}  // namespace owl::cuda
