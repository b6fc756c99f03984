// Grouping: in the order of recording, each operation joins the group of an operand's producer or begins a new one.
// A group is elementwise operations over one shape, which become one fused program, or a kernel, perhaps with such a
// program before it, after it or both: they run range by range, where the kernel reads or has just written. An
// operation may join a group unless something else that it reads must wait for that group; each group's transitive
// needs are a bit set, so that this is a test of bits.
#include "plan/group.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>

#include "device/device.h"

namespace owl::planner {

namespace {

// Of inputs that only the program reads and that are computed for it: all of them are in memory at once. Or so many of
// the program's size, of a parameter, its gradient and an optimiser's state, up to so many bytes.
constexpr std::int64_t kMaxPendingBytes = 64 << 20, kMaxPendingInputs = 6, kMaxPendingBytesOfThese = 1 << 30;

// The groups of this batch that an operation reads.
struct Reads {
  GroupSet direct;
  GroupSet viewed;  // of these, those of which it reads a view, and so must wait for
};

Reads reads_of(const Batch& batch, const Node& node) {
  Reads reads;
  for (const Node* in : node.inputs()) {
    const GroupId g = in ? batch.producer(in) : kNoGroup;
    if (g == kNoGroup) continue;
    reads.direct.set(g);
    if (in->base) reads.viewed.set(g);
  }
  return reads;
}

GroupSet with_needs(const Batch& batch, GroupId g) {
  GroupSet s = batch.groups[g].needs;
  s.set(g);
  return s;
}

// Whether one of these groups must run after g.
bool waits_for(const Batch& batch, const GroupSet& some, GroupId g) {
  for (GroupId other = some._Find_first(); other < batch.groups.size(); other = some._Find_next(other))
    if (batch.groups[other].needs[g]) return true;
  return false;
}

std::int64_t bytes_of(const Node& node) { return node.shape.size() * static_cast<std::int64_t>(itemsize(node.dtype)); }

// What the elementwise operation would add to a program of group g. Inputs are what it would have to read from memory,
// pending ones those of them that other groups of this batch compute and that have no handle.
Load load_of(const Batch& batch, const Node& node, GroupId g) {
  Load load{.instructions = 1 + casts(node)};
  for (const Node* in : node.inputs()) {
    if (!in) continue;
    const GroupId from = batch.producer(in);
    load.inputs += in->base || from != g;
    load.gathers |= in->strides != nullptr;
    if (from != kNoGroup && from != g && !in->plan.has_handle)
      load.pending_bytes += bytes_of(*in);
  }
  return load;
}

// Of what these members and the node would wait for, each value once: loads count it for each of its readers.
std::int64_t pending_bytes(const Batch& batch, std::initializer_list<const Part*> parts, const Node& node,
                           std::initializer_list<GroupId> own) {
  std::vector<const Node*> pending;
  const auto look = [&](const Node& reader) {
    for (const Node* in : reader.inputs()) {
      const GroupId from = in ? batch.producer(in) : kNoGroup;
      if (from == kNoGroup || in->plan.has_handle || std::ranges::find(own, from) != own.end()) continue;
      if (std::ranges::find(pending, in) == pending.end()) pending.push_back(in);
    }
  };
  look(node);
  for (const Part* part : parts)
    for (const Node* member : part->members) look(*member);
  std::int64_t bytes = 0;
  for (const Node* in : pending) bytes += bytes_of(*in);
  return bytes;
}

std::int64_t max_pending_bytes(const Node& node) {
  const auto limit = static_cast<std::int64_t>(node.device->allocator.limit());
  const auto most = std::max(kMaxPendingBytes, std::min(kMaxPendingInputs * bytes_of(node), kMaxPendingBytesOfThese));
  return limit ? std::min(limit / 8, most) : most;
}

double kernel_cost_ns(const Node& node) {
  double work = static_cast<double>(node.shape.size());
  for (const Node* in : node.inputs()) work += static_cast<double>(in->shape.size());
  if (node.op->cost) work = node.op->cost(shapes_of_inputs(node), node.shape, node.params.get());
  return node.device->backend->kernel_cost_ns(work);
}

// --- which group an operation joins

// Whether group g's kernel may wait for these groups too: it has to anyway, they are programs that need no more than
// it does, or it is so long that it takes the whole device. Short kernels run side by side, and should not be tied to
// one another: whether they do is the backend's to say.
bool may_wait(const Batch& batch, GroupId g, const GroupSet& more) {
  if (batch.groups[g].kernel_ns >= batch.groups[g].kernel->device->backend->long_kernel_ns()) return true;
  const GroupSet known = with_needs(batch, g);
  for (GroupId other = 0; other < batch.groups.size(); ++other) {
    const Group& group = batch.groups[other];
    if (more[other] && !known[other] && (group.kernel || (group.needs & ~known).any())) return false;
  }
  return true;
}

bool has_room(const Batch& batch, GroupId g, TaskPart place, const Load& more, const Node& node) {
  const Part& part = batch.groups[g].part(place);
  const auto most = max_pending_bytes(node);
  return part.load.instructions + more.instructions <= kMaxInstructions && part.load.inputs + more.inputs <= kMaxInputs &&
         (more.pending_bytes == 0 || part.load.pending_bytes + more.pending_bytes <= most ||
          pending_bytes(batch, {&part}, node, {g}) <= most);
}

// The part of group g in which the elementwise operation may run, if nothing else that it reads must wait for g.
std::optional<TaskPart> place_in(const Batch& batch, GroupId g, const Node& node, const GroupSet& direct) {
  const Group& group = batch.groups[g];
  bool reads_before = false, reads_result = false;
  for (const Node* in : node.inputs())
    if (in && batch.producer(in) == g) (in->plan.part == TaskPart::kBefore ? reads_before : reads_result) = true;
  if (reads_before && reads_result) return {};
  const auto place = reads_result ? TaskPart::kAfter : TaskPart::kBefore;
  const Node& first = reads_result ? *group.kernel : *group.before.members.front();
  if (first.device != node.device || first.traced != node.traced || !(first.shape == node.shape)) return {};
  const Load load = load_of(batch, node, g);
  // A strided view is gathered well only by a program of its own.
  if (group.kernel && (node.traced || load.gathers || !may_wait(batch, g, direct))) return {};
  if (reads_result && !traits_of(*group.kernel).finishes_ranges) return {};
  if (!has_room(batch, g, place, load, node) || waits_for(batch, direct, g)) return {};
  return place;
}

// Whether program b may become part of group a for `node`, which reads both (and so at most one more array).
bool can_merge(const Batch& batch, GroupId a, GroupId b, const Node& node) {
  const Group &ga = batch.groups[a], &gb = batch.groups[b];
  const Load &la = ga.part(node.plan.part).load, &lb = gb.before.load;
  const auto most = max_pending_bytes(node);
  return !gb.kernel && !ga.needs[b] && !gb.needs[a] &&
         (!ga.kernel || (!lb.gathers && may_wait(batch, a, gb.needs))) &&
         la.instructions + lb.instructions + 1 + casts(node) <= kMaxInstructions &&
         la.inputs + lb.inputs < kMaxInputs &&
         (la.pending_bytes + lb.pending_bytes <= most ||
          pending_bytes(batch, {&ga.part(node.plan.part), &gb.before}, node, {a, b}) <= most);
}

void append(Part& to, const Part& from) {
  std::vector<Node*> members(to.members.size() + from.members.size());
  std::merge(to.members.begin(), to.members.end(), from.members.begin(), from.members.end(), members.begin(),
             [](Node* x, Node* y) { return x->plan.index < y->plan.index; });
  to.members = std::move(members);
  to.load += from.load;
}

// Group b, a program, becomes part of group a.
void merge(Batch& batch, GroupId a, GroupId b, TaskPart place) {
  Group &ga = batch.groups[a], &gb = batch.groups[b];
  for (Node* node : gb.before.members) {
    batch.group_of[static_cast<std::size_t>(node->plan.index)] = a;
    node->plan.part = place;
  }
  append(ga.part(place), gb.before);
  ga.needs |= gb.needs;
  gb = {};
  gb.merged_away = true;
  for (Group& g : batch.groups) {
    if (!g.needs[a] && !g.needs[b]) continue;
    g.needs.reset(b);
    g.needs.set(a);
    g.needs |= ga.needs;
  }
}

// Rather a kernel's task than a program's, and of two kernels the later one's: the other has run by then.
int rank(const Batch& batch, GroupId g) {
  const Node* kernel = batch.groups[g].kernel;
  return kernel ? kernel->plan.index : -1;
}

// The group that the operation joins; kNoGroup: a new one. Sets node.plan.part; groups that it connects are merged.
GroupId home_of_elementwise(Batch& batch, Node& node, Reads& reads) {
  GroupId home = kNoGroup;
  for (const Node* in : node.inputs()) {
    const GroupId g = in ? batch.producer(in) : kNoGroup;
    if (g == kNoGroup || g == home || reads.viewed[g]) continue;
    const auto part = place_in(batch, g, node, reads.direct);
    if (!part || (home != kNoGroup && rank(batch, g) <= rank(batch, home))) continue;
    home = g;
    node.plan.part = *part;
  }
  if (home == kNoGroup) return home;
  for (const Node* in : node.inputs()) {
    const GroupId g = in ? batch.producer(in) : kNoGroup;
    if (g == kNoGroup || g == home || reads.viewed[g] || !place_in(batch, g, node, reads.direct)) continue;
    if (!can_merge(batch, home, g, node)) continue;
    merge(batch, home, g, node.plan.part);
    reads.direct.reset(g);
  }
  return home;
}

// A kernel that can read operand 0 range by range joins the program that computes it.
GroupId home_of_kernel(const Batch& batch, const Node& node, const Reads& reads) {
  const auto reads_ranges = traits_of(node).reads_ranges;
  if (!reads_ranges || node.traced) return kNoGroup;
  const Node* in = node.inputs()[0];
  const GroupId g = batch.producer(in);
  if (g == kNoGroup || reads.viewed[g] || in->device != node.device) return kNoGroup;
  const Group& group = batch.groups[g];
  if (group.kernel || group.before.load.gathers || in->traced || !reads_ranges(in->shape, node.params.get()))
    return kNoGroup;
  for (const Node* other : node.inputs().subspan(1))
    if (other && batch.producer(other) == g) return kNoGroup;
  return waits_for(batch, reads.direct, g) ? kNoGroup : g;
}

// --- joining it

// The group, and those that need it, need what the operation reads.
void add_needs(Batch& batch, GroupId home, GroupSet direct) {
  direct.reset(home);
  if (direct.none()) return;
  GroupSet& needs = batch.groups[home].needs;
  for (GroupId g = direct._Find_first(); g < batch.groups.size(); g = direct._Find_next(g))
    needs |= with_needs(batch, g);
  for (Group& reader : batch.groups)
    if (reader.needs[home]) reader.needs |= needs;
}

void assign(Batch& batch, Node& node) {
  Reads reads = reads_of(batch, node);
  const bool elementwise = is_elementwise(node);
  if (!elementwise) node.plan.part = TaskPart::kKernel;
  GroupId home = elementwise ? home_of_elementwise(batch, node, reads) : home_of_kernel(batch, node, reads);
  if (home == kNoGroup) {
    home = batch.groups.size();
    batch.groups.emplace_back();
    if (elementwise) node.plan.part = TaskPart::kBefore;
  }
  Group& group = batch.groups[home];
  if (elementwise) {
    Part& part = group.part(node.plan.part);
    if (part.members.empty()) part.members.reserve(16);
    part.members.push_back(&node);
    part.load += load_of(batch, node, home);
  } else {
    group.kernel = &node;
    group.kernel_ns = kernel_cost_ns(node);
  }
  add_needs(batch, home, reads.direct);
  batch.group_of[static_cast<std::size_t>(node.plan.index)] = home;
}

void count_uses(const Batch& batch, const Node& reader) {
  const GroupId home = batch.producer(&reader);
  for (Node* in : reader.inputs())
    if (in && !in->base && batch.producer(in) == home) ++in->plan.uses;
}

}  // namespace

void group(Batch& batch) {
  batch.group_of.assign(batch.nodes.size(), kNoGroup);
  batch.groups.reserve(batch.nodes.size());
  for (Node* node : batch.nodes) assign(batch, *node);
  for (const Node* node : batch.nodes) count_uses(batch, *node);
}

}  // namespace owl::planner
