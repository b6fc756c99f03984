// A caching allocator: blocks in size classes, cached for reuse, under a strict limit.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/module_api.h"
#include "base/ranked_mutex.h"
#include "owl/device.h"

namespace owl {

class Backend;
class Storage;

class Allocator {
 public:
  Allocator(Backend& backend, const int& device_id) : backend_(backend), device_id_(device_id) {}

  // Null if the limit (after trimming the cache) or the machine's memory does not suffice.
  OWL_MODULE_API void* allocate(std::size_t bytes);
  OWL_MODULE_API void free(void* data, std::size_t bytes);
  // The same for a value's memory, which the allocator then lists. `idle`: prefer blocks that the device no longer
  // uses, because the value is copied in concurrently with the device's work.
  bool allocate(Storage& storage, bool idle = false);
  void give_back(Storage& storage);
  void move(Storage& from, Storage& to);  // `to` takes over from's memory
  // Cached copy of a value in a kernel-specific layout, made on its second use and kept with the value, if a quarter of
  // the limit stays free; dropped when memory is short and no kernel uses it. `data` is null if there is none; while
  // not `ready`, the caller fills it.
  struct Packing {
    void* data = nullptr;
    bool ready = false;
  };
  Packing pack(Storage& storage, std::int64_t layout, std::size_t bytes);
  void unpack(Storage& storage, std::int64_t layout, bool filled);  // this user no longer needs it
  // The largest values in memory: "8000000 bytes: float32 [1000, 2000] of matmul at file.py:12; ..."
  std::string largest_holders(std::size_t count);
  OWL_MODULE_API bool holds(const std::function<bool(const Storage&)>& which);  // whether such a value is in memory
  OWL_MODULE_API void empty_cache();
  bool drop_packed();  // packed copies that no kernel uses now; false if there was none
  std::size_t allocated();
  void set_limit(std::size_t bytes);
  std::size_t limit() const { return limit_; }  // takes no lock
  MemoryStats stats();
  void lock_for_fork() { mutex_.lock_at_fork(); }
  void unlock_after_fork() { mutex_.unlock(); }

  // The size class of a request: classes are an eighth of a power of two apart, at least 64 bytes.
  static std::size_t rounded(std::size_t bytes);

 private:
  // `place`: the device's position when the block was freed (Backend::place); `arrival`: a copy into the block that the
  // device may not have waited for.
  struct Block {
    void* data;
    std::uint64_t place, arrival;
  };
  Block allocate_locked(std::size_t size, bool idle = false);
  void free_locked(void* data, std::size_t size, std::uint64_t arrival = 0);
  void trim_locked(std::size_t wanted);
  void drop_packed_locked(Storage& storage);  // those without users
  void drop_packed_locked();
  void link(Storage& storage);
  void unlink(Storage& storage);
  void log(const char* sign, std::size_t size);

  Backend& backend_;
  const int& device_id_;  // for the log
  RankedMutex<LockRank::kAllocator> mutex_;
  std::map<std::size_t, std::vector<Block>> cache_;  // by rounded size
  Storage* newest_ = nullptr;  // linked list of the values in memory
  std::int64_t packings_ = 0;  // number of packed copies
  std::size_t allocated_ = 0, cached_ = 0, peak_ = 0;
  std::atomic<std::size_t> limit_ = 0;
};

}  // namespace owl
