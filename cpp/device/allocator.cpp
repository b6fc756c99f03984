#include "device/allocator.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <mutex>
#include <utility>

#include "base/hooks.h"
#include "base/env.h"
#include "device/backend.h"
#include "device/storage.h"

namespace owl {

constexpr std::size_t kLeastCache = 64 << 20;  // always kept, however little memory is in use
constexpr std::size_t kMostBusy = 4;  // busy blocks of one size class before imported data waits for one

std::size_t Allocator::rounded(std::size_t bytes) {
  if (bytes <= 64) return 64;
  // Eight classes to a power of two waste at most an eighth; multiples of 64 keep alignment.
  const std::size_t step = std::max<std::size_t>(64, std::bit_floor(bytes) / 8);
  return (bytes + step - 1) / step * step;
}

void* Allocator::allocate(std::size_t bytes) {
  std::lock_guard lock(mutex_);
  return allocate_locked(rounded(bytes)).data;
}

void Allocator::free(void* data, std::size_t bytes) {
  std::lock_guard lock(mutex_);
  free_locked(data, rounded(bytes));
}

bool Allocator::allocate(Storage& storage, bool idle) {
  std::lock_guard lock(mutex_);
  const Block block = allocate_locked(rounded(storage.bytes), idle);
  storage.data = block.data;
  if (idle) storage.ticket = block.place;
  if (storage.data) link(storage);
  return storage.data != nullptr;
}

void Allocator::give_back(Storage& storage) {
  std::lock_guard lock(mutex_);
  assert(storage.refs() == 0 && storage.allocator_ == this);
  drop_packed_locked(storage);
  unlink(storage);
  free_locked(storage.data, rounded(storage.bytes), storage.arrival);
}

void Storage::give_back() { allocator_->give_back(*this); }

void Allocator::move(Storage& from, Storage& to) {
  std::lock_guard lock(mutex_);
  assert(from.allocator_ == this && from.data && !to.data);
  drop_packed_locked(from);
  unlink(from);
  to.data = std::exchange(from.data, nullptr);
  to.arrival = from.arrival;
  link(to);
}

Allocator::Packing Allocator::pack(Storage& storage, std::int64_t layout, std::size_t bytes) {
  constexpr std::size_t kMostLayouts = 8;
  std::lock_guard lock(mutex_);
  auto& all = storage.packed_;
  const auto found = std::ranges::find(all, layout, &Storage::Packed::layout);
  if (found == all.end()) {
    if (all.size() < kMostLayouts) all.push_back({.layout = layout});
    return {};
  }
  if (!found->data) {
    const auto size = rounded(bytes);
    if (limit_ && allocated_ + size > limit_ - limit_ / 4) return {};
    *found = {.layout = layout, .data = allocate_locked(size).data, .bytes = size};
    if (!found->data) return {};
    ++packings_;
  } else if (!found->ready) {
    return {};  // another kernel is filling it
  }
  ++found->users;
  return {found->data, found->ready};
}

void Allocator::unpack(Storage& storage, std::int64_t layout, bool filled) {
  std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(storage.packed_, layout, &Storage::Packed::layout);
  assert(found != storage.packed_.end() && found->users > 0);
  --found->users;
  found->ready |= filled;
  if (!found->ready) drop_packed_locked(storage);
}

void Allocator::drop_packed_locked(Storage& storage) {
  for (auto& packed : storage.packed_) {
    if (!packed.data || packed.users > 0) continue;
    free_locked(std::exchange(packed.data, nullptr), packed.bytes);
    packed.ready = false;
    --packings_;
  }
}

void Allocator::drop_packed_locked() {
  if (packings_ == 0) return;
  for (Storage* s = newest_; s; s = s->older_) drop_packed_locked(*s);
}

std::string Allocator::largest_holders(std::size_t count) {
  std::lock_guard lock(mutex_);
  std::vector<const Storage*> all;
  for (const Storage* s = newest_; s; s = s->older_) all.push_back(s);
  std::sort(all.begin(), all.end(), [](auto* a, auto* b) { return a->bytes > b->bytes; });
  if (all.size() > count) all.resize(count);
  std::string text;
  for (const Storage* s : all) {
    const auto place = place_of(s->source);
    text += (text.empty() ? "" : "; ") + std::to_string(s->bytes) + " bytes: " + std::string(name(s->dtype)) + " " +
            s->shape.str() + " of " + s->op + (place.empty() ? "" : " at " + place);
  }
  return text;
}

Allocator::Block Allocator::allocate_locked(std::size_t size, bool idle) {
  Block block{};
    if (limit_ && allocated_ + size > limit_) drop_packed_locked();
  if (auto blocks = cache_.find(size); blocks != cache_.end() && !blocks->second.empty()) {
    if (limit_ && allocated_ + size > limit_) return {};
    auto& all = blocks->second;
    auto at = std::prev(all.end());
    // The newest block is the likeliest to be in the CPU's cache, the oldest to be idle. If none is idle, allocate new
    // memory.
    if (idle && !backend_.has_passed(at->place)) {
      const auto found = std::ranges::find_if(all, [&](const Block& b) { return backend_.has_passed(b.place); });
      if (found != all.end()) at = found;
      else if (!limit_ && all.size() < kMostBusy) block.data = backend_.allocate(size);
      else at = all.begin();  // the copy waits for this block
    }
    if (!block.data) {
      block = *at;
      all.erase(at);
      cached_ -= size;
      if (!idle) backend_.require_arrival(block.arrival);
    }
  } else {
    if (limit_ && allocated_ + cached_ + size > limit_) {
      trim_locked(allocated_ + cached_ + size - limit_);
      if (allocated_ + cached_ + size > limit_) return {};
    }
    block.data = backend_.allocate(size);
    if (!block.data) {
      drop_packed_locked();
      trim_locked(cached_);
      block.data = backend_.allocate(size);
    }
    if (!block.data) return {};
    if (settings().log_memory) log("+", size);
  }
  allocated_ += size;
  assert(block.data && (!limit_ || allocated_ <= limit_));
  peak_ = std::max(peak_, allocated_);
  return block;
}

void Allocator::free_locked(void* data, std::size_t size, std::uint64_t arrival) {
  assert(data && allocated_ >= size);
  allocated_ -= size;
  cached_ += size;
  cache_[size].push_back({data, backend_.place(), arrival});
  if (limit_ && allocated_ + cached_ > limit_) trim_locked(allocated_ + cached_ - limit_);  // lowered meanwhile
  // Otherwise sizes that vary from step to step would each keep their own blocks.
  if (const auto most = std::max(kLeastCache, 2 * peak_); cached_ > most) trim_locked(cached_ - most);
}

void Allocator::link(Storage& storage) {
  storage.allocator_ = this;
  storage.older_ = newest_;
  if (newest_) newest_->newer_ = &storage;
  newest_ = &storage;
}

void Allocator::unlink(Storage& storage) {
  if (storage.older_) storage.older_->newer_ = storage.newer_;
  if (storage.newer_) storage.newer_->older_ = storage.older_;
  else newest_ = storage.older_;
}

void Allocator::log(const char* sign, std::size_t size) {
  log_line("memory device " + std::to_string(device_id_) + ": " + sign + std::to_string(size) + " bytes, " +
           std::to_string(allocated_) + " in use, " + std::to_string(cached_) + " cached");
}

bool Allocator::drop_packed() {
  std::lock_guard lock(mutex_);
  const auto before = packings_;
  drop_packed_locked();
  return packings_ < before;
}

bool Allocator::holds(const std::function<bool(const Storage&)>& which) {
  std::lock_guard lock(mutex_);
  for (const Storage* s = newest_; s; s = s->older_)
    if (which(*s)) return true;
  return false;
}

void Allocator::empty_cache() {
  std::lock_guard lock(mutex_);
  drop_packed_locked();
  trim_locked(cached_);
}

std::size_t Allocator::allocated() {
  std::lock_guard lock(mutex_);
  return allocated_;
}

void Allocator::set_limit(std::size_t bytes) {
  std::lock_guard lock(mutex_);
  limit_ = bytes;
  if (limit_ && allocated_ + cached_ > limit_) trim_locked(allocated_ + cached_ - limit_);
}

MemoryStats Allocator::stats() {
  std::lock_guard lock(mutex_);
  return {allocated_, cached_, peak_, limit_.load()};
}

// Frees cached blocks, the largest first, until `wanted` bytes are freed or none is left.
void Allocator::trim_locked(std::size_t wanted) {
  std::size_t gone = 0;
  for (auto it = cache_.rbegin(); it != cache_.rend() && gone < wanted; ++it) {
    while (!it->second.empty() && gone < wanted) {
      backend_.free(it->second.back().data, it->first, it->second.back().place);
      it->second.pop_back();
      gone += it->first;
      assert(cached_ >= it->first);
      cached_ -= it->first;
      if (settings().log_memory) log("-", it->first);
    }
  }
}

}  // namespace owl
