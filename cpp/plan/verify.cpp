// Checks of groups, layouts and order (verify_tasks.cpp: of tasks). They recompute by simple means what the passes
// update incrementally.
#include "plan/verify.h"

#include <algorithm>
#include <string>

#include "plan/layout.h"

namespace owl::planner {

namespace {

std::string text(const Node& node) {
  return "operation " + std::to_string(node.plan.index) + " (" + node.op->name + ")";
}
std::string text(GroupId g) { return "group " + std::to_string(g); }

const char* text(TaskPart part) {
  return part == TaskPart::kBefore ? "before" : part == TaskPart::kKernel ? "kernel" : "after";
}

// --- groups: membership

void check_member(const Batch& batch, const Node* node, GroupId g, TaskPart part, std::vector<GroupId>& found) {
  const auto index = static_cast<std::size_t>(node->plan.index);
  if (index >= batch.nodes.size() || batch.nodes[index] != node)
    broken(text(g) + " has an operation that is not of this batch");
  if (found[index] != kNoGroup) broken(text(*node) + " is in " + text(found[index]) + " and again in " + text(g));
  found[index] = g;
  if (batch.group_of[index] != g)
    broken(text(*node) + " is in " + text(g) + ", but noted to be in " + text(batch.group_of[index]));
  if (node->plan.part != part)
    broken(text(*node) + " is in part '" + text(part) + "' of " + text(g) + ", but noted to be in part '" +
           text(node->plan.part) + "'");
  if (is_elementwise(*node) != (part != TaskPart::kKernel))
    broken(text(*node) + " cannot be in part '" + text(part) + "' of " + text(g));
}

void check_membership(const Batch& batch) {
  std::vector<GroupId> found(batch.nodes.size(), kNoGroup);
  for (GroupId g = 0; g < batch.groups.size(); ++g) {
    const Group& group = batch.groups[g];
    for (const Node* node : group.before.members) check_member(batch, node, g, TaskPart::kBefore, found);
    if (group.kernel) check_member(batch, group.kernel, g, TaskPart::kKernel, found);
    for (const Node* node : group.after.members) check_member(batch, node, g, TaskPart::kAfter, found);
    const bool empty = group.before.members.empty() && !group.kernel;
    if (empty != group.merged_away) broken(text(g) + (empty ? " is empty" : " is merged away and has operations"));
    if (!group.kernel && !group.after.members.empty()) broken(text(g) + " has a program behind no kernel");
  }
  for (std::size_t i = 0; i < found.size(); ++i)
    if (found[i] == kNoGroup) broken(text(*batch.nodes[i]) + " is in no group");
}

// --- groups: programs

void check_limit(const std::string& where, const char* what, int count, int noted, int most) {
  if (count > most) broken(where + " has " + std::to_string(count) + what + ", more than " + std::to_string(most));
  if (count > noted)
    broken(where + " has " + std::to_string(count) + what + ", but noted are " + std::to_string(noted));
}

void check_limits(const Batch& batch, const Group& group, const Part& part, const std::string& where) {
  int instructions = 0;
  std::vector<const Node*> inputs;
  for (const Node* node : part.members) {
    instructions += 1 + casts(*node);
    for (const Node* in : node->inputs())
      if (in && !batch.is_member(in, group)) inputs.push_back(in);
  }
  std::ranges::sort(inputs);
  const auto distinct = std::ranges::unique(inputs).begin() - inputs.begin();
  check_limit(where, " instructions", instructions, part.load.instructions, kMaxInstructions);
  check_limit(where, " inputs", static_cast<int>(distinct), part.load.inputs, kMaxInputs);
}

// `like`: a node with the program's device and shape.
void check_part(const Batch& batch, GroupId g, TaskPart part, const Node& like) {
  const Group& group = batch.groups[g];
  const std::string where = "part '" + std::string(text(part)) + "' of " + text(g);
  const auto& members = group.part(part).members;
  if (!std::ranges::is_sorted(members, {}, [](const Node* node) { return node->plan.index; }))
    broken(where + " is not in the order of recording");
  for (const Node* node : members) {
    if (node->device != like.device) broken(text(*node) + " is on another device than " + where);
    if (!(node->shape == like.shape))
      broken(text(*node) + " has shape " + node->shape.str() + ", " + where + " has " + like.shape.str());
    if (node->traced != like.traced || (node->traced && group.kernel))
      broken(text(*node) + " cannot be watched for NaN in " + where);
  }
  check_limits(batch, group, group.part(part), where);
}

void check_parts(const Batch& batch, GroupId g) {
  const Group& group = batch.groups[g];
  if (!group.before.members.empty())
    check_part(batch, g, TaskPart::kBefore, group.kernel ? *group.kernel->inputs()[0] : *group.before.members[0]);
  if (group.kernel) check_part(batch, g, TaskPart::kAfter, *group.kernel);
}

// --- groups: dependencies

// A value of a group that is not in memory can be read only by later parts of the group, range by range.
void check_read_inside(const Batch& batch, const Node& reader, std::size_t i) {
  const Node& in = *reader.inputs()[i];
  const TaskPart from = in.plan.part, to = reader.plan.part;
  const bool in_program = from == to && is_elementwise(reader);
  const bool result = from == TaskPart::kKernel && to == TaskPart::kAfter && traits_of(in).finishes_ranges;
  const bool operand = from == TaskPart::kBefore && to == TaskPart::kKernel && i == 0 && traits_of(reader).reads_ranges;
  if (!in_program && !result && !operand)
    broken(text(reader) + " in part '" + text(to) + "' of " + text(batch.producer(&reader)) + " cannot read " +
           text(in) + " in part '" + text(from) + "'");
  if (in.plan.index >= reader.plan.index) broken(text(reader) + " reads " + text(in) + ", which comes later");
}

void check_reads(const Batch& batch) {
  for (const Node* reader : batch.nodes) {
    const Group& group = batch.groups[batch.producer(reader)];
    const auto inputs = reader->inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i] && batch.is_member(inputs[i], group)) check_read_inside(batch, *reader, i);
    if (reader != group.kernel || group.before.members.empty()) continue;
    if (inputs.empty() || !batch.is_member(inputs[0], group))
      broken(text(*reader) + " does not read the program before it");
  }
}

// For each group, the groups that must run before it, directly or not.
std::vector<GroupSet> needs_of_groups(const Batch& batch) {
  const auto count = batch.groups.size();
  std::vector<GroupSet> needs(count);
  for (const Node* reader : batch.nodes) {
    const GroupId g = batch.producer(reader);
    for (const Node* in : reader->inputs())
      if (in && batch.producer(in) != kNoGroup && !batch.is_member(in, batch.groups[g]))
        needs[g].set(batch.producer(in));
  }
  for (GroupId between = 0; between < count; ++between)
    for (GroupId g = 0; g < count; ++g)
      if (needs[g][between]) needs[g] |= needs[between];
  return needs;
}

void check_needs(const Batch& batch) {
  const auto needs = needs_of_groups(batch);
  for (GroupId g = 0; g < needs.size(); ++g) {
    if (needs[g][g]) broken(text(g) + " waits for itself");
    const GroupSet wrong = needs[g] ^ batch.groups[g].needs;
    if (wrong.none()) continue;
    const GroupId other = wrong._Find_first();
    broken(text(g) + (needs[g][other] ? " needs " : " does not need ") + text(other) + ", but notes otherwise");
  }
}

void check_uses(const Batch& batch) {
  std::vector<std::int32_t> reads(batch.nodes.size()), inside(batch.nodes.size());
  for (const Node* reader : batch.nodes)
    for (const Node* in : reader->inputs()) {
      if (!in || in->plan.index < 0 || in->base) continue;
      const auto i = static_cast<std::size_t>(in->plan.index);
      ++reads[i];
      if (batch.producer(in) == batch.producer(reader)) ++inside[i];
    }
  for (std::size_t i = 0; i < reads.size(); ++i) {
    const auto& noted = batch.nodes[i]->plan;
    if (noted.reads != reads[i] || noted.uses != inside[i])
      broken(text(*batch.nodes[i]) + " is read " + std::to_string(reads[i]) + " times, " + std::to_string(inside[i]) +
             " of them in its group, but noted are " + std::to_string(noted.reads) + " and " +
             std::to_string(noted.uses));
  }
}

// --- layouts

// A value with a view has a handle.
void check_channels_last(const Group& group, GroupId g) {
  if (group.kernel && !(known_channels_last(group) & 1 && group.before.members.empty()))
    broken("the kernel of " + text(g) + " does not know channels last");
  const auto check = [g](const Node& node) {
    if (node.shape.ndim() != 4) broken(text(node) + " is channels last in " + text(g) + " and no image");
    if (!is_wanted(node)) return;
    if (node.dtype != DType::kFloat32) broken(text(node) + " is channels last and not float32");
    if (node.plan.held)
      broken(text(node) + " is channels last and may be read outside this batch");
  };
  if (group.kernel) check(*group.kernel);
  for (const Part* part : {&group.before, &group.after})
    for (const Node* node : part->members) check(*node);
}

void check_operand_layout(const Batch& batch, const Node& reader, std::size_t i) {
  const Node& in = *reader.inputs()[i];
  const Group& group = batch.groups[batch.producer(&reader)];
  if (batch.is_member(&in, group)) return;
  const bool last = batch.is_channels_last(in);
  const bool kernel = &reader == group.kernel, same = !kernel && in.shape.size() == reader.shape.size();
  const bool knows = kernel ? known_channels_last(group) >> (i + 1) & 1 : same && group.channels_last;
  if (last && !knows) broken(text(reader) + " reads " + text(in) + " as planes, but it is channels last");
  if (!last && same && group.channels_last)
    broken(text(reader) + " reads operand " + std::to_string(i) + " as channels last, but it is planes");
}

}  // namespace

void verify_groups(const Batch& batch) {
  check_membership(batch);
  check_reads(batch);
  for (GroupId g = 0; g < batch.groups.size(); ++g) check_parts(batch, g);
  check_needs(batch);
  check_uses(batch);
}

void verify_layouts(const Batch& batch) {
  for (GroupId g = 0; g < batch.groups.size(); ++g)
    if (batch.groups[g].channels_last) check_channels_last(batch.groups[g], g);
  for (const Node* reader : batch.nodes)
    for (std::size_t i = 0; i < reader->inputs().size(); ++i)
      if (reader->inputs()[i]) check_operand_layout(batch, *reader, i);
}

void verify_order(const Batch& batch, std::span<const GroupId> order) {
  GroupSet done;
  for (const GroupId g : order) {
    if (g >= batch.groups.size() || batch.groups[g].merged_away) broken(text(g) + " is to run, but there is none");
    if (done[g]) broken(text(g) + " is to run twice");
    const GroupSet missing = batch.groups[g].needs & ~done;
    if (missing.any()) broken(text(g) + " is to run before " + text(missing._Find_first()) + ", which it needs");
    done.set(g);
  }
  for (GroupId g = 0; g < batch.groups.size(); ++g)
    if (!done[g] && !batch.groups[g].merged_away) broken(text(g) + " is not to run");
}

}  // namespace owl::planner
