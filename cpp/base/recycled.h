// Memory of destroyed objects of one class, and of short vectors, kept for the next ones that the thread makes. Nodes,
// storages, tasks and the notes of tapes come and go by the hundred, many more of one size than the seven that glibc's
// cache of a thread keeps: without this an eighth of the time of an update of many small arrays goes to malloc and free,
// and a fifth of that of one small operation.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace owl {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
template <class T, int most = 256> class Recycled {};  // the sanitizers watch every block
template <class T> using RecycledBlocks = std::allocator<T>;
#else
template <class T, int most = 256> class Recycled {
 public:
  static void* operator new(std::size_t bytes) {
    Kept& kept = kept_;
    if (!kept.first) return ::operator new(bytes);
    --kept.count;
    return std::exchange(kept.first, kept.first->next);
  }
  static void operator delete(void* memory) {
    Kept& kept = kept_;
    if (kept.count >= most) return ::operator delete(memory);
    if (kept.count < 0) begin(kept);
    ++kept.count;
    kept.first = new (memory) Free{kept.first};
  }

 private:
  struct Free {
    Free* next;
  };
  struct Kept {
    Free* first;
    int count;  // -1: none yet
  };
  // A thread that ends keeps nothing from then on.
  struct Guard {
    ~Guard() {
      kept_.count = most;
      while (Free* each = kept_.first) {
        kept_.first = each->next;
        ::operator delete(each);
      }
    }
  };
  [[gnu::cold]] static void begin(Kept& kept) {
    static thread_local Guard frees_what_is_kept;
    (void)frees_what_is_kept;
    kept.count = 0;
  }

  static constinit inline thread_local Kept kept_{nullptr, -1};
};

// A vector whose memory, up to 1 KB, is kept like that: as blocks of a few sizes.
template <std::size_t bytes> struct RecycledBlock : Recycled<RecycledBlock<bytes>, 64> {
  alignas(std::max_align_t) unsigned char memory[bytes];
};
template <class T> struct RecycledBlocks {
  using value_type = T;
  RecycledBlocks() = default;
  template <class U> RecycledBlocks(const RecycledBlocks<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(take(n * sizeof(T))); }
  void deallocate(T* memory, std::size_t n) { give_back(memory, n * sizeof(T)); }
  bool operator==(const RecycledBlocks&) const = default;

 private:
  static_assert(alignof(T) <= alignof(std::max_align_t));
  static void* take(std::size_t bytes) {
    if (bytes <= 64) return RecycledBlock<64>::operator new(64);
    if (bytes <= 256) return RecycledBlock<256>::operator new(256);
    if (bytes <= 1024) return RecycledBlock<1024>::operator new(1024);
    return ::operator new(bytes);
  }
  static void give_back(void* memory, std::size_t bytes) {
    if (bytes <= 64) return RecycledBlock<64>::operator delete(memory);
    if (bytes <= 256) return RecycledBlock<256>::operator delete(memory);
    if (bytes <= 1024) return RecycledBlock<1024>::operator delete(memory);
    ::operator delete(memory);
  }
};
#endif

template <class T> using RecycledVector = std::vector<T, RecycledBlocks<T>>;

}  // namespace owl
