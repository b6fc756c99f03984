#include "plan/known_plans.h"

#include <algorithm>
#include <utility>

#include "base/counters.h"

namespace owl::planner {

bool KnownPlans::write(const Batch& batch) {
  if (!write_key(batch, key_)) return false;
  hash_ = 14695981039346656037u;  // FNV-1a, a word at a time
  for (const auto word : key_) hash_ = (hash_ ^ word) * 1099511628211u;
  return true;
}

KnownPlans::Known* KnownPlans::find() {
  const auto known = std::ranges::find_if(known_, [this](const Known& k) { return k.hash == hash_ && k.key == key_; });
  if (known == known_.end()) return nullptr;
  known->used = ++uses_;
  count(counters.plans_reused);
  return &*known;
}

// In place of the one that was used least recently.
BatchPlan& KnownPlans::store(BatchPlan plan) {
  const auto place = known_.size() < kMost ? known_.emplace(known_.end())
                                           : std::ranges::min_element(known_, {}, &Known::used);
  *place = {hash_, key_, std::move(plan), ++uses_};
  return place->plan;
}

void verify_known(const BatchPlan& known, const BatchPlan& made) {
  if (known != made) broken("a plan is used again for a batch that would have another one");
}

}  // namespace owl::planner
