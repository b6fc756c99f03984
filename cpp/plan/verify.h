// Checks what each pass of the planner promises to the next. Builds with assertions (without NDEBUG: Debug and the
// sanitizers') run the checks between the passes; tests call them in any build.
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

// Each throws an Error that names what is broken. Handles may go while a batch is planned, so that what is asked of
// them is only what stays true then.

// After grouping: every operation is in one group, in its place; programs keep to their limits, one device and one
// shape; groups read one another without a cycle, and each knows all that it needs.
void verify_groups(const Batch& batch);
// After layout: a channels-last value is read only in this batch, by kernels and programs that know that it is.
void verify_layouts(const Batch& batch);
// After ordering: every group stands there once, after all that it needs.
void verify_order(const Batch& batch, std::span<const GroupId> order);
// After emission, of this batch's tasks: operands precede, results are distinct and complete, programs are well-formed.
void verify_tasks(const Batch& batch, std::span<const std::unique_ptr<Task>> tasks, const DryPlan* dry);

// The last for one program of a task.
void verify_program(const Program& program);

}  // namespace owl::planner
