// What the kernels on top of oneDNN share. oneDNN is always called single-threaded, from one of owl's own threads: the
// split of work into such calls is owl's, so that it depends on sizes only, and no OpenMP team ever exists.
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

// Before creating or running anything of oneDNN on a thread: how it partitions work is asked of OpenMP in both cases.
void use_one_openmp_thread();

const dnnl::engine& onednn_engine();
dnnl::stream& onednn_stream();  // the calling thread's; also makes the thread single-threaded for OpenMP

// Memory of the calling thread for a while. There are two buffers, one for a kernel's own use and one for the matrix
// products inside it; a lease of one must end before its next begins. Small buffers are kept for the thread's next
// chunk, large ones are given back.
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

// The most recently used T by a key of numbers. Making one is slow (code is generated), so two threads that miss the
// same key may both make it; the first one stays.
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
