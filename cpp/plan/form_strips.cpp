// Depth first: from the first kernel over images that computes strip by strip, those tasks join it that read what the
// strips make and nothing that must wait for all of them. A value that only they read has no memory but a strip's.
#include "plan/form_strips.h"

#include <algorithm>
#include <utility>

#include "device/device.h"

namespace owl::planner {

namespace {

constexpr std::int64_t kFewestStrips = 16;      // with fewer, threads that are left without one would lose more
constexpr std::int64_t kManyStrips = 32;        // beyond, strips are made longer, which costs less to begin:
constexpr std::int64_t kStripBytes = 1 << 20;   // up to so many bytes that the tasks make,
constexpr std::int64_t kMostStripBytes = 4 << 20;  // which they may exceed so far: not all are needed until the end
constexpr std::int64_t kLeastFlow = 4 << 20;    // bytes between the tasks, at least: fewer stay in a cache anyway
// Memory that would be free earlier without strips: values whose other readers must wait for the last strip, at most so
// much or this part of what the tasks make; and sums' partial sums, which are there together. Less under a limit.
constexpr std::int64_t kMostDelayed = 4 << 20, kDelayedPart = 16, kMostPartials = 8 << 20, kPartOfLimit = 4;

constexpr std::size_t kNone = ~std::size_t{0};

// How a task computes in strips.
struct Cutting {
  std::int64_t images = 0;  // in all
  std::int64_t unit = 1;    // a strip is a multiple of it
  std::int64_t partials = 0;  // bytes
  std::vector<bool> inputs{}; // which operands are cut
  bool outputs = true;      // whether the results are; a sum's are whole
};

std::int64_t images_of(const Shape& shape) { return shape.ndim() ? shape[shape.ndim() - 1] : 0; }

bool is_cut(const Program::Input& input, const Shape& shape) {
  return input.strides[static_cast<std::size_t>(shape.ndim() - 1)] != 0;
}

class Forming {
 public:
  Forming(const Batch& batch, BatchPlan& plan)
      : batch_(batch), plan_(plan), cuttings_(plan.size()), maker_(batch.nodes.size(), kNone) {}

  // False: there are too few kernels over images.
  bool look_at_kernels() {
    std::size_t found = 0;
    for (std::size_t t = 0; t < plan_.size(); ++t)
      if (plan_[t].has_kernel && is_plain(plan_[t])) found += (cuttings_[t] = cutting_of_kernel(plan_[t])).images > 0;
    return found > 1;
  }

  void look_at_the_rest() {
    for (std::size_t t = 0; t < plan_.size(); ++t) {
      if (!plan_[t].has_kernel && is_plain(plan_[t])) cuttings_[t] = cutting_of_program(plan_[t]);
      for (const auto& out : plan_[t].outputs)
        if (out.value) maker_[out.maker] = t;
      for (const auto& in : plan_[t].inputs)
        if (const auto maker = maker_of(in); maker != kNone && plan_[maker].device != plan_[t].device)
          awaited_.push_back(maker);
    }
  }

  void run() {
    std::vector<std::size_t> all(plan_.size());
    for (std::size_t t = 0; t < all.size(); ++t) all[t] = t;
    settle(std::move(all));
    finish();
  }

 private:
  // Appends these tasks to the order, as they are or in strips.
  void settle(std::vector<std::size_t> left) {
    while (!left.empty()) {
      const auto first = std::ranges::find_if(left, [this](std::size_t t) { return begins(t); });
      order_.insert(order_.end(), left.begin(), first);
      left.erase(left.begin(), first);
      if (left.empty()) break;
      left = form_from(left);
    }
  }

  const Node& read_by(const OperandPlan& in) const { return *batch_.nodes[in.reader]->inputs()[in.operand]; }

  // The task that makes the operand's memory; kNone: it comes from before.
  std::size_t maker_of(const OperandPlan& in) const {
    if (in.copy) return *in.copy;
    const Node& node = read_by(in);
    const auto index = (node.base ? node.base : &node)->plan.index;
    return index < 0 ? kNone : maker_[static_cast<std::size_t>(index)];
  }

  // Whether its images are those of the value that it reads: the value itself, or all of it in another shape.
  bool is_whole(const OperandPlan& in) const {
    const Node& node = read_by(in);
    if (in.copy || !node.base) return !in.copy;
    const Node& value = *node.base;
    return !value.results && !node.strides && node.shape.size() == value.shape.size() &&
           images_of(node.shape) == images_of(value.shape);
  }

  // Not watched for NaN, and each result a value that an operation of its own stands for.
  static bool is_plain(const TaskPlan& task) {
    return !task.traced && task.kernel_outputs.empty() &&
           std::ranges::none_of(task.outputs, [](const ResultPlan& out) { return !out.value || out.token; });
  }

  Cutting cutting_of_program(const TaskPlan& task) const {
    const Program& program = task.before->program;
    Cutting c{.images = task.device->backend->runs_strips() ? images_of(program.shape) : 0};
    if (c.images > 0)
      for (const auto& in : program.inputs) c.inputs.push_back(is_cut(in, program.shape));
    return c;
  }

  Cutting cutting_of_kernel(const TaskPlan& task) const {
    const Node& node = *batch_.nodes[task.shown];
    const auto strips = traits_of(node).strips;
    if (!strips) return {};
    std::vector<ArrayRef> in;
    if (task.before) in.push_back(kernel_operand(task.before->program));
    for (const auto& operand : task.inputs)
      if (operand.part == TaskPart::kKernel) in.push_back(operand.array);
    ArrayRef out = task.outputs.back().array;
    out.dtype = node.dtype;
    const auto [unit, cut_arrays, partials] = strips(in, out, node.params.get());
    if (unit == 0) return {};
    const unsigned cut = cut_arrays;
    Cutting c{.unit = unit, .partials = partials, .outputs = (cut & 1) != 0};
    const auto is_cut_operand = [cut](std::size_t i) { return (cut >> (i + 1) & 1) != 0; };
    if (task.before) {
      if (!is_cut_operand(0) || !c.outputs) return {};
      const Program& before = task.before->program;
      for (const auto& input : before.inputs) c.inputs.push_back(is_cut(input, before.shape));
    }
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (i > 0 || !task.before) c.inputs.push_back(is_cut_operand(i));
      if (is_cut_operand(i)) c.images = images_of(in[i].shape);
    }
    if (task.after)
      for (std::size_t i = 1; i < task.after->program.inputs.size(); ++i)
        c.inputs.push_back(c.outputs && is_cut(task.after->program.inputs[i], task.after->program.shape));
    return c;
  }

  bool begins(std::size_t t) const {
    const Cutting& c = cuttings_[t];
    return plan_[t].has_kernel && c.outputs && c.images >= kFewestStrips * c.unit;
  }

  // Bytes of the task's cut results, of one image.
  std::int64_t made_by(std::size_t t) const {
    std::int64_t bytes = 0;
    if (cuttings_[t].outputs)
      for (const auto& out : plan_[t].outputs) bytes += static_cast<std::int64_t>(out.array.nbytes());
    return bytes / cuttings_[t].images;
  }

  // --- one task in strips

  // What a task reads of the members, and whether it could be one.
  struct Relation {
    bool follows = false;    // it must run behind them
    bool fits = true;
    std::int64_t reads = 0;  // bytes that they make
  };

  Relation relation_of(std::size_t t, const std::vector<bool>& behind) const {
    const TaskPlan& task = plan_[t];
    const TaskPlan& first = plan_[members_.front()];
    Relation r{.fits = cuttings_[t].images == cuttings_[members_.front()].images && task.device == first.device};
    for (std::size_t i = 0; i < task.inputs.size(); ++i) {
      const auto& in = task.inputs[i];
      const auto maker = maker_of(in);
      if (maker == kNone) continue;
      if (is_member(maker)) {
        r.follows = true;
        r.fits = r.fits && cuttings_[t].inputs[i] && cuttings_[maker].outputs && is_whole(in);
        r.reads += static_cast<std::int64_t>(in.array.nbytes());
      } else if (behind[maker]) {
        r.follows = true;
        r.fits = false;
      }
    }
    return r;
  }

  // Makes one of the first of these tasks and others, if that pays. Returns what is left.
  std::vector<std::size_t> form_from(const std::vector<std::size_t>& left) {
    members_.assign(1, left.front());
    const std::int64_t images = cuttings_[left.front()].images;
    const auto limit = static_cast<std::int64_t>(plan_[left.front()].device->allocator.limit());
    const auto capped = [limit](std::int64_t bytes) { return limit ? std::min(bytes, limit / kPartOfLimit) : bytes; };
    std::int64_t unit = cuttings_[left.front()].unit, bytes = made_by(left.front()), flow = 0, partials = 0, delayed = 0;
    std::vector<bool> behind(plan_.size());  // tasks that are no members and must run behind them
    bool ended = false;
    for (const std::size_t t : std::span(left).subspan(1)) {
      const auto [follows, fits, reads] = relation_of(t, behind);
      const Cutting& c = cuttings_[t];
      const auto longest = std::max(unit, c.unit);
      const bool joins = fits && reads > 0 && images >= kFewestStrips * longest &&
                         (bytes + made_by(t)) * longest <= kMostStripBytes &&
                         (partials == 0 || partials + c.partials <= capped(kMostPartials));
      // At a sum that another device waits for: it would be there only with the last strip.
      ended = ended || delayed > capped(std::max(kMostDelayed, bytes * images / kDelayedPart)) ||
              (joins && std::ranges::find(awaited_, t) != awaited_.end());
      if (!joins || ended) {
        behind[t] = follows;
        delayed += reads;
        continue;
      }
      unit = longest;
      bytes += made_by(t);
      partials += c.partials;
      flow += reads;
      members_.push_back(t);
    }
    const auto kernels = std::ranges::count_if(members_, [this](std::size_t t) { return plan_[t].has_kernel; });
    if (kernels < 2 || flow < kLeastFlow) {
      order_.push_back(left.front());
      return {left.begin() + 1, left.end()};
    }
    std::vector<bool> ahead(plan_.size());
    for (const std::size_t t : members_) note_needs(t, left, ahead);
    std::vector<std::size_t> first, rest;
    for (const std::size_t t : left)
      if (!is_member(t)) (ahead[t] ? first : rest).push_back(t);
    auto members = std::move(members_);
    settle(std::move(first));  // which may have strips of their own
    members_ = std::move(members);
    join(images, strip_of(images, unit, bytes));
    return rest;
  }

  bool is_member(std::size_t t) const { return std::ranges::find(members_, t) != members_.end(); }

  // Whichever of `left` must have run, directly or not.
  void note_needs(std::size_t t, const std::vector<std::size_t>& left, std::vector<bool>& ahead) const {
    for (const auto& in : plan_[t].inputs) {
      const auto maker = maker_of(in);
      if (maker == kNone || is_member(maker) || ahead[maker] || !std::ranges::binary_search(left, maker)) continue;
      ahead[maker] = true;
      note_needs(maker, left, ahead);
    }
  }

  static std::int64_t strip_of(std::int64_t images, std::int64_t unit, std::int64_t bytes) {
    const auto most = std::min(images / kManyStrips, kStripBytes / std::max<std::int64_t>(1, bytes));
    return std::max(unit, most / unit * unit);
  }

  bool is_read_by(std::size_t t, const ResultPlan& value) const {
    return std::ranges::any_of(plan_[t].inputs, [&](const OperandPlan& in) {
      return !in.copy && read_by(in).plan.index == value.maker;
    });
  }

  // Whether members read the value, and nothing else does.
  bool stays_inside(const ResultPlan& value) const {
    if (batch_.nodes[value.maker]->plan.held) return false;
    bool inside = false;
    for (std::size_t t = 0; t < plan_.size(); ++t) {
      if (!is_read_by(t, value)) continue;
      if (!is_member(t)) return false;
      inside = true;
    }
    return inside;
  }

  // Makes the members one task, which takes the place of the last.
  void join(std::int64_t images, std::int64_t strip) {
    TaskPlan joined{.device = plan_[members_.back()].device, .name = plan_[members_.back()].name,
                    .shown = plan_[members_.back()].shown};
    StripsPlan& strips = joined.strips.emplace_back(StripsPlan{.images = images, .strip = strip});
    std::vector<std::pair<Position, StripPlace>> made;  // by members, so far
    for (const std::size_t t : members_) {
      StripsPlan::Member member{.task = std::move(plan_[t])};
      const Cutting& c = cuttings_[t];
      for (std::size_t i = 0; i < member.task.inputs.size(); ++i)
        member.inputs.push_back(place_of(member.task.inputs[i], c.inputs[i], made, joined));
      for (const auto& out : member.task.outputs) {
        const bool inside = c.outputs && stays_inside(out);
        const StripPlace place{inside ? StripPlace::In::kStrip : StripPlace::In::kResult,
                         static_cast<std::uint16_t>(inside ? strips.bytes.size() : joined.outputs.size()), c.outputs};
        if (inside) strips.bytes.push_back(out.array.nbytes() / static_cast<std::size_t>(images) *
                                           static_cast<std::size_t>(strip));
        else joined.outputs.push_back(out);
        made.emplace_back(out.maker, place);
        member.outputs.push_back(place);
      }
      joined.cost_ns += member.task.cost_ns;
      joined.fused += member.task.fused;
      strips.members.push_back(std::move(member));
    }
    for (auto& out : joined.outputs) out.part = TaskPart::kKernel;
    plan_[members_.back()] = std::move(joined);
    order_.push_back(members_.back());
    members_.clear();
  }

  StripPlace place_of(const OperandPlan& in, bool cut, const std::vector<std::pair<Position, StripPlace>>& made,
                      TaskPlan& joined) const {
    const Node& node = read_by(in);
    const auto value = (node.base ? node.base : &node)->plan.index;
    if (!in.copy)
      for (const auto& [maker, place] : made)
        if (value == maker) return place;
    const auto known = std::ranges::find_if(joined.inputs, [&](const OperandPlan& other) {
      return other.copy == in.copy && !in.copy && &read_by(other) == &node && other.array == in.array;
    });
    const auto index = static_cast<std::uint16_t>(known - joined.inputs.begin());
    if (known == joined.inputs.end()) {
      joined.inputs.push_back(in);
      joined.inputs.back().part = TaskPart::kKernel;
      joined.inputs.back().replaceable = false;
    }
    return {StripPlace::In::kOperand, index, cut};
  }

  // The plan in the new order.
  void finish() {
    std::vector<std::size_t> place(plan_.size(), kNone);
    for (std::size_t i = 0; i < order_.size(); ++i) place[order_[i]] = i;
    BatchPlan ordered;
    ordered.reserve(order_.size());
    for (const std::size_t t : order_) {
      ordered.push_back(std::move(plan_[t]));
      for (auto& in : ordered.back().inputs)
        if (in.copy) in.copy = place[*in.copy];
    }
    plan_ = std::move(ordered);
  }

  const Batch& batch_;
  BatchPlan& plan_;
  std::vector<Cutting> cuttings_;     // of each task of the plan
  std::vector<std::size_t> maker_;    // of the value of each of the batch's operations
  std::vector<std::size_t> awaited_;  // tasks whose results another device reads, such as for a sum over devices
  std::vector<std::size_t> order_;    // of the tasks, as far as it is settled
  std::vector<std::size_t> members_;  // of the task in strips that is being formed
};

}  // namespace

void form_strips(const Batch& batch, BatchPlan& plan) {
  if (!batch.may_join) return;
  Forming forming(batch, plan);
  if (!forming.look_at_kernels()) return;
  forming.look_at_the_rest();
  forming.run();
}

}  // namespace owl::planner
