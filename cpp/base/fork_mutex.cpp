#include "base/fork_mutex.h"

#include <mutex>
#include <utility>

namespace owl {

namespace {
constinit std::mutex list_mutex;
constinit ForkMutex* first = nullptr;
}  // namespace

ForkMutex::ForkMutex() {
  std::lock_guard lock(list_mutex);
  next_ = std::exchange(first, this);
}

void ForkMutex::lock_all() {
  list_mutex.lock();
  for (ForkMutex* m = first; m; m = m->next_) m->lock_at_fork();
}

void ForkMutex::unlock_all() {
  for (ForkMutex* m = first; m; m = m->next_) m->unlock();
  list_mutex.unlock();
}

}  // namespace owl
