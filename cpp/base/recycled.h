// Memory for objects of one class that come and go in great numbers: each thread keeps what it freed for its next ones.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

namespace owl {

template <class T, int most = 1024> class Recycled {
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

}  // namespace owl
