#include "base/ranked_mutex.h"

#include <cstdio>
#include <cstdlib>

namespace owl {

namespace {

constexpr const char* kNames[kLockRanks] = {"held windows", "planner",   "window",  "devices", "scheduler",
                                            "peer copies",  "allocator", "profile", "leaf"};

std::string described(std::size_t rank) { return std::string(kNames[rank]) + " (rank " + std::to_string(rank) + ")"; }

#ifndef NDEBUG
constinit thread_local HeldRanks held_ranks;
#endif

}  // namespace

std::string HeldRanks::conflict(LockRank rank, bool beside_equals) const {
  const auto wanted = static_cast<std::size_t>(rank);
  for (std::size_t held = kLockRanks; held-- > wanted + (beside_equals ? 1 : 0);)
    if (held_[held] > 0)
      return "lock order: a thread takes the lock \"" + described(wanted) + "\" while it holds \"" + described(held) +
             "\"; see LockRank in base/ranked_mutex.h";
  return {};
}

#ifndef NDEBUG
void note_lock(LockRank rank, bool beside_equals) {
  if (const auto conflict = held_ranks.conflict(rank, beside_equals); !conflict.empty()) {
    std::fprintf(stderr, "owl: %s\n", conflict.c_str());
    std::abort();
  }
  held_ranks.add(rank);
}

void note_unlock(LockRank rank) { held_ranks.remove(rank); }
#endif

}  // namespace owl
