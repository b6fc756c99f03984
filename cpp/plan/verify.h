// Checks the invariants that each pass of the planner guarantees to the next. Builds with assertions (without NDEBUG:
// Debug and sanitizers) run the checks between the passes; tests call them in any build.
#pragma once

#include <memory>

#include "plan/batch.h"
#include "plan/dry_plan.h"

namespace owl::planner {

#ifdef NDEBUG
inline constexpr bool kVerify = false;
#else
inline constexpr bool kVerify = true;
#endif

// Each throws an Error that names the violation. Handles may be dropped while a batch is planned, so the checks use
// only properties that still hold afterwards.

// After grouping: every operation is in one group and in a valid part; each program keeps to its limits, one device and
// one shape; groups depend on one another without a cycle, and `needs` of each is complete.
void verify_groups(const Batch& batch);
// After layout: a channels-last value is read only in this batch, by kernels and programs that take this layout.
void verify_layouts(const Batch& batch);
// After ordering: every group occurs once, after all groups that it needs.
void verify_order(const Batch& batch, std::span<const GroupId> order);
// After emission, for this batch's tasks: operands precede readers, results are distinct and complete, programs are
// well-formed.
void verify_tasks(const Batch& batch, std::span<const std::unique_ptr<Task>> tasks, const DryPlan* dry);

// The check of one program of a task.
void verify_program(const Program& program);

}  // namespace owl::planner
