// A mutex that is unlocked in a forked child.
#pragma once

#include "base/module_api.h"
#include "base/ranked_mutex.h"

namespace owl {

// The engine locks all of them before a fork and unlocks them after it, in parent and child: otherwise one that another
// thread holds would stay locked in the child, which lacks that thread. For short sections: a thread that holds one
// takes no other lock. Lives until the process ends.
class OWL_MODULE_API ForkMutex : public RankedMutex<LockRank::kLeaf> {
 public:
  ForkMutex();

  static void lock_all();
  static void unlock_all();

 private:
  ForkMutex* next_;
};

}  // namespace owl
