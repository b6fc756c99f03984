// Layouts: images stay channels last between kernels that take this layout, and in the programs around them, so that
// only the first and the last kernel of a chain convert. The pass starts with every group whose results may be channels
// last, drops the layout where a reader or an operand needs planes, and iterates to a fixed point.
#include "plan/layout.h"

#include <algorithm>
#include <utility>

#include "device/device.h"

namespace owl::planner {

namespace {

constexpr std::int64_t kLeastChannels = 8;  // with fewer, vectors over the channels are half empty

// Whether the value is a float32 image of many channels that only operations of this batch read, or stays in its task.
bool may_be_channels_last(const Node* node) {
  return node->shape.ndim() == 4 && node->shape[2] >= kLeastChannels && !node->traced &&
         (!is_wanted(*node) || (node->dtype == DType::kFloat32 && !node->plan.held));
}

bool may_be_channels_last(const Group& group, bool kernel_knows) {
  if (group.merged_away || (group.kernel && !(kernel_knows && group.before.members.empty()))) return false;
  const auto may_be = [](const Node* node) { return may_be_channels_last(node); };
  return (!group.kernel || may_be(group.kernel)) && std::ranges::all_of(group.before.members, may_be) &&
         std::ranges::all_of(group.after.members, may_be);
}

// Drops the layout where `reader` and one of its operands disagree. True if any group changed.
bool settle(Batch& batch, const Node* reader, const std::vector<unsigned>& knows) {
  bool changed = false;
  const auto take_back = [&changed](Group& group) { changed |= std::exchange(group.channels_last, false); };
  const GroupId r = batch.producer(reader);
  Group& group = batch.groups[r];
  const auto inputs = reader->inputs();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Node* in = inputs[i];
    if (!in || batch.is_member(in, group)) continue;
    const bool kernel_knows = knows[r] >> (i + 1) & 1;
    const bool same = reader != group.kernel && in->shape.size() == reader->shape.size();
    if (batch.is_channels_last(*in) && !(reader == group.kernel ? kernel_knows : same && group.channels_last))
      take_back(batch.groups[batch.producer(in)]);
    if (same && !batch.is_channels_last(*in)) take_back(group);
  }
  return changed;
}

}  // namespace

unsigned known_channels_last(const Group& group) {
  const Node* kernel = group.kernel;
  if (!kernel || kernel->traced || kernel->dtype != DType::kFloat32) return 0;
  const auto channels_last = traits_of(*kernel).channels_last;
  if (!channels_last) return 0;
  return channels_last(shapes_of_inputs(*kernel), kernel->shape, kernel->params.get());
}

void lay_out(Batch& batch) {
  std::vector<unsigned> knows;
  for (const Group& group : batch.groups) knows.push_back(known_channels_last(group));
  if (std::ranges::none_of(knows, [](unsigned k) { return k != 0; })) return;
  for (GroupId g = 0; g < batch.groups.size(); ++g)
    batch.groups[g].channels_last = may_be_channels_last(batch.groups[g], knows[g] & 1);
  for (bool changed = true; changed;) {
    changed = false;
    for (const Node* reader : batch.nodes) changed |= settle(batch, reader, knows);
  }
}

}  // namespace owl::planner
