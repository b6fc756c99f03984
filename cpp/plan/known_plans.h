// The plans of the last batches, by key: a loop's batches are alike from one turn to the next, and are planned once.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/plan_key.h"
#include "plan/task_plan.h"

namespace owl::planner {

// Called by one thread at a time.
class KnownPlans {
 public:
  // The batch's plan; made by `make` if it is not known. Valid until the next call.
  template <class F> BatchPlan& plan_of(const Batch& batch, F make);

 private:
  static constexpr std::size_t kMost = 64;
  struct Known {
    std::uint64_t hash;
    PlanKey key;
    BatchPlan plan;
    std::uint64_t used = 0;  // when last, as an increasing number
  };

  bool write(const Batch& batch);  // key_ and hash_; false: the batch has no key
  Known* find();
  BatchPlan& store(BatchPlan plan);

  PlanKey key_;
  std::uint64_t hash_ = 0;
  std::vector<Known> known_;
  BatchPlan unknown_;  // of a batch without a key
  std::uint64_t uses_ = 0;
};

// The plan is the one that would be made now. Throws an Error otherwise.
void verify_known(const BatchPlan& known, const BatchPlan& made);

template <class F> BatchPlan& KnownPlans::plan_of(const Batch& batch, F make) {
  if (!write(batch)) return unknown_ = make();
  if (Known* known = find()) return known->plan;
  return store(make());
}

}  // namespace owl::planner
