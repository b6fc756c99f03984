// The order of work on a GPU's streams: events, tickets, lists that are submitted, commands that fail. With the mutex
// held, unless said otherwise.
#include <algorithm>
#include <set>

#include "backend/cuda/backend.h"
#include "backend/cuda/emit.h"
#include "base/env.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

// How far the worker may run ahead of the GPU: in lists, and in launches, of which the driver queues about 1000. Beyond
// that the driver's calls would block while owl holds the mutex.
constexpr std::size_t kMostInFlight = 64, kMostLaunches = 768;

}  // namespace

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

}  // namespace owl::cuda
