// A mutex that is free in a forked child.
#pragma once

#include "base/module_api.h"
#include "base/ranked_mutex.h"

namespace owl {

// The engine takes every one of them before a fork and frees it behind that, on both sides: a child never finds one
// that a thread held which it lacks. For moments only: a holder takes no other lock. Lives until the process ends.
class OWL_MODULE_API ForkMutex : public RankedMutex<LockRank::kLeaf> {
 public:
  ForkMutex();

  static void lock_all();
  static void unlock_all();

 private:
  ForkMutex* next_;
};

}  // namespace owl
