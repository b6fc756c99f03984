#include "device/storage.h"

#include <mutex>
#include <unordered_set>
#include <utility>

#include "base/counters.h"
#include "base/fork_mutex.h"

namespace owl {

namespace {

// Storages of this thread whose memory another library owns, and the number of scopes that defer their release.
thread_local std::vector<Storage*> foreign_list;
thread_local int deferrals = 0;

// The failed values that still exist. The set does not keep them alive: a storage removes itself when it is destroyed.
struct FailedValues {
  ForkMutex mutex;
  std::unordered_set<const Storage*> storages;
};
FailedValues& failed_values() {
  static auto& values = *new FailedValues;
  return values;
}

}  // namespace

Storage::Storage(Device& device_, const Shape& shape_, DType dtype_, const char* op_, const Source& source_)
    : device(&device_), bytes(static_cast<std::size_t>(shape_.size()) * itemsize(dtype_)), op(op_), source(source_),
      shape(shape_), dtype(dtype_) {}

Ref<Storage> Storage::create(Device& device, const Shape& shape, DType dtype, const char* op, const Source& source) {
  count(counters.live_storages);
  return Ref<Storage>::steal(new Storage(device, shape, dtype, op, source));
}

void Storage::fail(std::shared_ptr<const Failure> why) {
  failure = std::move(why);
  {
    auto& failed = failed_values();
    std::lock_guard lock(failed.mutex);
    failed.storages.insert(this);
  }
  state.store(State::kFailed, std::memory_order_release);
}

void Storage::destroy() {
  if (failure) {
    auto& failed = failed_values();
    std::lock_guard lock(failed.mutex);
    failed.storages.erase(this);
  }
  if (foreign_release) {
    if (deferrals > 0) return foreign_list.push_back(this);
    foreign_release(foreign);
  } else if (data) {
    give_back();
  }
  count(counters.live_storages, -1);
  delete this;
}

Storage::DeferForeign::DeferForeign() { ++deferrals; }
Storage::DeferForeign::~DeferForeign() {
  if (--deferrals > 0) return;
  for (Storage* s : std::exchange(foreign_list, {})) s->destroy();
}

std::shared_ptr<const Failure> report_earliest_failure(std::shared_ptr<const Failure> candidate) {
  auto& failed = failed_values();
  std::lock_guard lock(failed.mutex);  // two threads must report different failures
  auto first = std::move(candidate);
  for (const Storage* storage : failed.storages) {
    const auto& failure = storage->failure;
    const bool known = storage->token ? failure->raised : failure->reported;
    if (!known && (!first || failure->sequence < first->sequence)) first = failure;
  }
  if (first) first->reported = true;
  return first;
}

}  // namespace owl
