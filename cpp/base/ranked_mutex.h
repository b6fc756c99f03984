// Mutexes with a rank: the one order in which threads take the engine's locks (docs/architecture.md, "Locks"). Builds
// with assertions (without NDEBUG: Debug and sanitizers) check it; in other builds each is a plain std::mutex.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>

#include "base/module_api.h"

namespace owl {

// In locking order: a thread takes only locks whose rank is above that of every lock it holds.
enum class LockRank : std::uint8_t {
  kHeldWindows,
  kPlanner,
  kWindow,
  kDevices,
  kScheduler,
  kPeerCopies,
  kAllocator,
  kProfile,
  kLeaf,  // ForkMutex
};
inline constexpr std::size_t kLockRanks = static_cast<std::size_t>(LockRank::kLeaf) + 1;

// The locks that one thread holds, by rank.
class HeldRanks {
 public:
  // Why a lock of this rank must not be taken now; empty if it may be. `beside_equals`: another lock of this rank may
  // be held, as at a fork, which takes all locks.
  std::string conflict(LockRank rank, bool beside_equals = false) const;
  void add(LockRank rank) { ++held_[static_cast<std::size_t>(rank)]; }
  void remove(LockRank rank) { --held_[static_cast<std::size_t>(rank)]; }

 private:
  std::array<int, kLockRanks> held_{};
};

#ifndef NDEBUG
// Notes that this thread locks, or has unlocked, such a mutex. Aborts with the names of both locks if the order forbids
// it.
OWL_MODULE_API void note_lock(LockRank rank, bool beside_equals);
OWL_MODULE_API void note_unlock(LockRank rank);
#else
inline void note_lock(LockRank, bool) {}
inline void note_unlock(LockRank) {}
#endif

template <LockRank rank> class RankedMutex {
 public:
  void lock() {
    note_lock(rank, false);
    mutex_.lock();
  }
  void lock_at_fork() {  // may be held beside others of its rank: each allocator has one
    note_lock(rank, true);
    mutex_.lock();
  }
  void unlock() {
    mutex_.unlock();
    note_unlock(rank);
  }
  auto native_handle() { return mutex_.native_handle(); }

 private:
  friend class RankedCondition;
  std::mutex mutex_;
};
static_assert(sizeof(RankedMutex<LockRank::kLeaf>) == sizeof(std::mutex));

// std::condition_variable for a RankedMutex. A waiting thread still counts as holding the rank: it takes no other lock.
class RankedCondition {
 public:
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }
  template <LockRank rank> void wait(std::unique_lock<RankedMutex<rank>>& lock) {
    Plain plain(lock);
    condition_.wait(plain.lock);
  }
  template <LockRank rank, class Time> void wait_until(std::unique_lock<RankedMutex<rank>>& lock, const Time& time) {
    Plain plain(lock);
    condition_.wait_until(plain.lock, time);
  }
  template <LockRank rank, class Duration> void wait_for(std::unique_lock<RankedMutex<rank>>& lock, Duration duration) {
    wait_until(lock, std::chrono::steady_clock::now() + duration);
  }

 private:
  // The lock as std::condition_variable takes it.
  struct Plain {
    template <LockRank rank>
    explicit Plain(std::unique_lock<RankedMutex<rank>>& ranked) : lock(ranked.mutex()->mutex_, std::adopt_lock) {}
    ~Plain() { lock.release(); }
    std::unique_lock<std::mutex> lock;
  };

  std::condition_variable condition_;
};

}  // namespace owl
