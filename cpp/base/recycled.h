// Memory of destroyed objects of one class, kept for the next ones that the thread makes. Nodes, storages, tasks and
// the notes of tapes come and go by the hundred, many more of one size than the seven that glibc's cache of a thread
// keeps: without this an eighth of the time of an update of many small arrays goes to malloc and free.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

namespace owl {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
template <class T, int most = 256> class Recycled {};  // the sanitizers watch every block
#else
template <class T, int most = 256> class Recycled {
 public:
  static void* operator new(std::size_t bytes) {
    if (!free_) return ::operator new(bytes);
    --kept_;
    return std::exchange(free_, free_->next);
  }
  static void operator delete(void* memory) {
    if (kept_ >= most) return ::operator delete(memory);
    static thread_local Guard frees_what_is_kept;
    (void)frees_what_is_kept;
    ++kept_;
    free_ = new (memory) Free{free_};
  }

 private:
  struct Free {
    Free* next;
  };
  // A thread that ends keeps nothing from then on.
  struct Guard {
    ~Guard() {
      kept_ = most;
      while (Free* each = free_) {
        free_ = each->next;
        ::operator delete(each);
      }
    }
  };

  static constinit inline thread_local Free* free_ = nullptr;
  static constinit inline thread_local int kept_ = 0;
};
#endif

}  // namespace owl
