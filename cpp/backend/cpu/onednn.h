// Shared by the kernels that use oneDNN. oneDNN always runs single-threaded, on one of owl's threads: owl splits the
// work into calls, so that the split depends only on sizes, and no OpenMP team is ever created.
#pragma once

#include <cstddef>
#include <cstdint>
#include <dnnl.hpp>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace owl::cpu {

// Call it on a thread before creating or running a oneDNN primitive there: both take the number of threads from OpenMP.
void use_one_openmp_thread();

const dnnl::engine& onednn_engine();
dnnl::stream& onednn_stream();  // the calling thread's; also makes the thread single-threaded for OpenMP

// A lease of the calling thread's scratch memory. There are two buffers, one for the kernel and one for the matrix
// products inside it; a lease of a buffer must end before its next begins. Small buffers are kept for the thread's next
// chunk, large ones are freed.
class ThreadScratch {
 public:
  enum class For { kKernel, kProduct };
  explicit ThreadScratch(std::size_t bytes, For user = For::kKernel);
  ~ThreadScratch();
  ThreadScratch(const ThreadScratch&) = delete;
  ThreadScratch& operator=(const ThreadScratch&) = delete;

  // The next piece, 64-byte aligned; null for 0 bytes. The pieces' sizes, each rounded up to 64, sum to `bytes`.
  std::byte* take(std::size_t bytes);
  static constexpr std::size_t padded(std::size_t bytes) { return (bytes + 63) & ~std::size_t{63}; }

 private:
  For user_;
  std::byte* next_;
};

// The most recently used objects T, by a key of numbers. Creating one is slow (oneDNN generates code), so two threads
// that miss the same key may both create it; the first one stays.
template <class T> class LruCache {
 public:
  using Key = std::vector<std::int64_t>;
  explicit LruCache(std::size_t capacity) : capacity_(capacity) {}

  template <class Make> std::shared_ptr<const T> get(const Key& key, Make make) {
    {
      std::lock_guard lock(mutex_);
      if (auto found = entries_.find(key); found != entries_.end()) {
        order_.splice(order_.begin(), order_, found->second.place);
        return found->second.value;
      }
    }
    std::shared_ptr<const T> value = make();
    std::lock_guard lock(mutex_);
    auto [entry, inserted] = entries_.try_emplace(key);
    if (!inserted) return entry->second.value;
    order_.push_front(&entry->first);
    entry->second = {value, order_.begin()};
    if (entries_.size() > capacity_) {
      const Key* oldest = order_.back();
      order_.pop_back();
      entries_.erase(entries_.find(*oldest));
    }
    return value;
  }

 private:
  struct Entry {
    std::shared_ptr<const T> value;
    typename std::list<const Key*>::iterator place;
  };
  std::mutex mutex_;
  std::size_t capacity_;
  std::map<Key, Entry> entries_;
  std::list<const Key*> order_;  // most recent first
};

}  // namespace owl::cpu
