// Memory of destroyed objects, kept for the next ones of their type that the thread makes. Nodes, storages and tasks come
// and go a window at a time, many more of one size than the seven that glibc's own cache of a thread holds: with that
// alone a fifth of an update of many small arrays goes to malloc and free.
#pragma once

#include <cstddef>
#include <new>

namespace owl {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
template <class T> class Recycled {};  // the sanitizers watch every block
#else
template <class T> class Recycled {
 public:
  static void* operator new(std::size_t bytes) { return list.count > 0 ? list.blocks[--list.count] : ::operator new(bytes); }
  static void operator delete(void* block) {
    if (list.count == kMost || list.closed) return ::operator delete(block);
    end_of_thread.arm();
    list.blocks[list.count++] = block;
  }

 private:
  static constexpr int kMost = 256;
  struct List {
    void* blocks[kMost];
    int count;
    bool closed;  // the thread ends
  };
  struct EndOfThread {
    void arm() {}
    ~EndOfThread() {
      list.closed = true;
      while (list.count > 0) ::operator delete(list.blocks[--list.count]);
    }
  };
  static inline constinit thread_local List list{};
  static inline thread_local EndOfThread end_of_thread;
};
#endif

}  // namespace owl
