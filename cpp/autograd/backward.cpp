#include "autograd/backward.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <numeric>

#include "autograd/checkpoint.h"
#include "autograd/records_for.h"
#include "base/hooks.h"
#include "device/device.h"
#include "graph/op.h"
#include "ops/add_views.h"
#include "ops/terms.h"

namespace owl {

namespace {

bool is_elementwise(const OpRecord& op) { return op.cls == OpRecord::Class::kElementwise; }

std::string type_text(const NArray& x) { return std::string(name(x.dtype())); }

// ---- views

// The axes that have more than one element, by their strides; none where these do not run through all of the value.
std::vector<int> order_of_memory(const ShapedSlot& from) {
  std::vector<int> axes;
  for (int i = 0; i < from.shape.ndim(); ++i)
    if (from.shape[i] > 1) axes.push_back(i);
  const auto stride = [&](int axis) { return std::abs(from.slot.view->strides[static_cast<std::size_t>(axis)]); };
  std::ranges::sort(axes, {}, stride);
  std::int64_t step = 1;
  for (const int axis : axes) {
    if (stride(axis) != step) return {};
    step *= from.shape[axis];
  }
  return axes;
}

// The gradient of a value from that of a view that has all of its elements, in another order: a view too, where it can
// be.
NArray put_back(const NArray& gradient, const ShapedSlot& from, const std::vector<int>& order) {
  const Shape& whole = from.whole();
  const std::vector<std::int64_t> lengths(whole.begin(), whole.end());
  if (order.empty()) return gradient.reshape(lengths);
  std::vector<IndexItem> items;
  for (int i = 0; i < from.shape.ndim(); ++i) {
    const std::int64_t n = from.shape[i];
    const bool reversed = from.slot.view->strides[static_cast<std::size_t>(i)] < 0;
    if (n == 1) items.push_back({IndexItem::Kind::kInteger});
    else if (reversed) items.push_back({IndexItem::Kind::kSlice, n - 1, n, -1});
    else items.push_back({IndexItem::Kind::kSlice, 0, n, 1});
  }
  std::vector<std::int64_t> axes;  // `order`, counted without the axes that went
  for (const int axis : order)
    axes.push_back(std::ranges::count_if(order, [&](int other) { return other < axis; }));
  const NArray ordered = gradient.index(items).transpose(axes);
  return ordered.shape() == whole ? ordered : ordered.reshape(lengths);
}

// The part with its axes in the order in which they lie in memory: a transposed one is dense then, and is not copied.
ViewPart in_order_of_memory(ViewPart part) {
  const Strides strides = strides_of(*part.x.node());
  std::vector<std::int64_t> axes(static_cast<std::size_t>(part.x.ndim()));
  std::iota(axes.begin(), axes.end(), 0);
  std::ranges::stable_sort(axes, {}, [&](std::int64_t axis) { return strides[static_cast<std::size_t>(axis)]; });
  if (std::ranges::is_sorted(axes)) return part;
  ViewPart ordered{part.x.transpose(axes), part.offset, {}};
  for (std::size_t i = 0; i < axes.size(); ++i) ordered.strides[i] = part.strides[static_cast<std::size_t>(axes[i])];
  return ordered;
}

void sum_parts(Flow& flow, const Shape& whole) {
  if (flow.parts.empty()) return;
  flow.sum = add_views(flow.sum, std::move(flow.parts), whole);
  flow.parts.clear();
  flow.part_elements = 0;
}

void add_to(Flow& flow, const ShapedSlot& from, const Term& gradient) {
  if (gradient.is_zero() || from.shape.size() == 0) return;
  const Slot::View* view = from.slot.view.get();
  if (!view) {
    flow.whole = add(flow.whole, gradient);
    return;
  }
  if (from.shape.size() == view->whole.size()) {
    const auto order = order_of_memory(from);
    if (!order.empty() || from.shape.size() == 1) {
      flow.whole = add(flow.whole, gradient.is_array() ? Term(put_back(gradient.array(), from, order)) : gradient);
      return;
    }
  }
  flow.parts.push_back(
      in_order_of_memory({to_array(gradient, from.shape, from.slot.dtype), view->offset, view->strides}));
  flow.part_elements += from.shape.size();
  if (flow.part_elements >= view->whole.size()) sum_parts(flow, view->whole);
}

Term total(Flow& flow, const Shape& whole) {
  sum_parts(flow, whole);
  return flow.sum.has_value() ? add(flow.whole, flow.sum) : flow.whole;
}

// ---- one operation

class TapeRule final : public Rule {
 public:
  TapeRule(const Noted& noted, Replayed replayed, std::vector<Term> errors, const std::vector<bool>& wants,
           Backward& backward)
      : Rule(noted.params), noted_(noted), replayed_(std::move(replayed)), errors_(std::move(errors)), wants_(wants),
        backward_(backward), operands_(noted.operands().size()), given_(wants) {
    for (std::size_t i = 0; i < operands_.size(); ++i) operands_[i] = term_of(i);
  }

  const Term& error(std::size_t i) const override { return errors_[i]; }
  const Term& operand(std::size_t i) const override { return operands_[i]; }
  const NArray& result(std::size_t i) const override {
    return noted_.checkpoint ? replayed_.results[i] : noted_.results()[i].saved;
  }
  std::size_t operand_count() const override { return operands_.size(); }
  const Shape& shape(std::size_t i) const override { return noted_.operand(i).shape; }
  const ResultType& result_type(std::size_t i) const override { return noted_.results()[i].type; }
  bool is_transposed(std::size_t i) const override {
    const ShapedSlot x = noted_.operand(i);
    return x.slot.view && x.shape.ndim() >= 2 && x.slot.view->strides[1] > 0 &&
           x.slot.view->strides[1] < x.slot.view->strides[0];
  }
  bool wants(std::size_t i) const override { return wants_[i]; }
  void require_all_given() const {
    if (std::ranges::count(given_, true) > 0)
      throw Error(std::string("internal error: the gradient of ") + noted_.op->name + " leaves out an operand");
  }

 private:
  Term term_of(std::size_t i) const {
    const NotedOperand& x = noted_.operands()[i];
    if (!x.is_array) return x.number;
    const NArray saved = saved_operand(i);
    if (!saved.has_value()) return {};
    const bool converts = is_elementwise(*noted_.op) && noted_.op->rule != TypeRule::kCast &&
                          !(noted_.op->rule == TypeRule::kSelect && i == 0);
    return converts ? record_cast(saved, noted_.compute) : saved;
  }

  NArray saved_operand(std::size_t i) const {
    const NotedOperand& x = noted_.operands()[i];
    if (x.drawn) {
      const UseDevice there(*x.device);
      const bool waits = errors_[0].is_array() && errors_[0].array().device() == x.device->id &&
                         errors_[0].array().shape().size() > 0;
      return waits ? draw_after(errors_[0].array(), *x.drawn->op, x.drawn->params)
                   : record(*x.drawn->op, {}, x.drawn->params);
    }
    return x.is_replayed ? replayed_.operands[i] : x.saved;
  }

  void accept(std::size_t i, Term gradient) override {
    const NotedOperand& x = noted_.operands()[i];
    given_[i] = false;
    const Shape& shape = noted_.operand(i).shape;
    const Shape& from = is_elementwise(*noted_.op) ? noted_.results()[0].type.shape : shape;
    gradient = sum_to(broadcast_to(gradient, from), from, shape);
    if (gradient.is_array()) {
      gradient = record_cast(gradient.array(), x.dtype);
      if (gradient.array().device() != x.device->id) gradient = gradient.array().copy_to(x.device->id);
    }
    backward_.deposit(noted_.operand(i), gradient);
  }

  const Noted& noted_;
  const Replayed replayed_;
  const std::vector<Term> errors_;
  const std::vector<bool>& wants_;
  Backward& backward_;
  std::vector<Term> operands_;
  std::vector<bool> given_;
};

}  // namespace

Backward::Backward(std::vector<Ref<const Noted>> notes, const GradientRequest& request)
    : notes_(std::move(notes)), request_(request), used_(request.sources.size()), view_flows_(request.sources.size()) {
  check_arrays();
  y_.set(*request.y.node());
  for (std::size_t i = 0; i < request.sources.size(); ++i) {
    Slot& source = sources_.emplace_back();
    source.set(*request.sources[i].node());
    const Node* base = request.sources[i].node()->base;
    if (!base || (base->results && !source.view)) value_sources_.insert(source.value());
    else view_sources_[source.own.get()].push_back(i);
  }
  find_dependents();
  find_needed();
  check_dependence();
}

void Backward::check_arrays() const {
  const auto require_float = [](const NArray& x, const std::string& what) {
    if (!x.has_value()) throw Error("gradient: " + what + " is an empty NArray; assign one first");
    if (!is_float(x.dtype()))
      throw DTypeError("gradient: " + what + " is " + type_text(x) + "; only float arrays have gradients, see astype");
  };
  require_float(request_.y, "y");
  const Shape& shape = request_.y.shape();
  if (!request_.seed.has_value() && shape.size() != 1)
    throw ShapeError("gradient: y has shape " + shape.str() +
                     ", which is not one number; sum it, or give a seed of its shape");
  if (request_.seed.has_value()) {
    require_float(request_.seed, "the seed");
    if (!(request_.seed.shape() == shape))
      throw ShapeError("gradient: the seed has shape " + request_.seed.shape().str() + ", y has " + shape.str() +
                       "; they must be the same");
  }
  for (std::size_t i = 0; i < request_.sources.size(); ++i) require_float(request_.sources[i], request_.names[i]);
}

// Forward: what depends on a source.
void Backward::find_dependents() {
  dependents_ = value_sources_;
  wants_.resize(notes_.size());
  for (std::size_t n = 0; n < notes_.size(); ++n) {
    const Noted& noted = *notes_[n];
    std::vector<bool> wants(noted.operands().size());
    bool any = false;
    for (std::size_t i = 0; i < wants.size(); ++i) {
      const NotedOperand& x = noted.operands()[i];
      wants[i] = x.has_path && depends(x);
      any |= wants[i];
    }
    if (!any) continue;
    wants_[n] = std::move(wants);
    for (const NotedResult& result : noted.results())
      if (is_float(result.type.dtype)) dependents_.insert(result.value);
  }
}

bool Backward::depends(const NotedOperand& x) const {
  bool found = dependents_.contains(x.value());
  if (!view_sources_.empty()) x.for_each_view([&](const Mark* mark) { found |= view_sources_.contains(mark); });
  return found;
}

// Back: what y depends on.
void Backward::find_needed() {
  std::unordered_set<ValueId, HashOfValue> reached;
  const auto reach = [&](const Slot& slot) {
    reached.insert(slot.value());
    slot.for_each_view([&](const Mark* mark) {
      if (const auto found = view_sources_.find(mark); found != view_sources_.end())
        for (const std::size_t source : found->second) used_[source] = true;
    });
  };
  if (!request_.y.node()->constant) reach(y_);
  needed_.resize(notes_.size());
  for (std::size_t n = notes_.size(); n-- > 0;) {
    if (wants_[n].empty()) continue;
    const Noted& noted = *notes_[n];
    const auto is_reached = [&](const NotedResult& r) { return reached.contains(r.value); };
    if (std::ranges::none_of(noted.results(), is_reached)) continue;
    needed_[n] = true;
    for (std::size_t i = 0; i < wants_[n].size(); ++i)
      if (wants_[n][i]) reach(noted.operands()[i]);
  }
  for (std::size_t i = 0; i < sources_.size(); ++i)
    if (value_sources_.contains(sources_[i].value()) && reached.contains(sources_[i].value()) &&
        !request_.sources[i].node()->constant)
      used_[i] = true;
}

void Backward::check_dependence() const {
  if (notes_.empty() && std::ranges::count(used_, true) == 0)  // a view of a source needs no note
    throw Error("gradient: nothing was noted on the tape; what y is computed from must be recorded inside its block");
  for (std::size_t i = 0; i < used_.size(); ++i)
    if (!used_[i] && !request_.zeros_for_unused)
      throw Error("gradient: y does not depend on " + request_.names[i] +
                  " by operations on this tape that have a gradient; unused=\"zeros\" gives zeros");
  for (std::size_t n = 0; n < notes_.size(); ++n) {
    if (!needed_[n]) continue;
    const Noted& noted = *notes_[n];
    if (!noted.op->gradient->exists || noted.op->gradient->exists(noted.params.get())) continue;
    const std::string place = place_of(noted.source);
    throw Error("gradient: the operation " + std::string(noted.op->name) +
                (place.empty() ? "" : ", recorded at " + place + ",") + " has no backward function");
  }
}

std::vector<NArray> Backward::run() {
  for (std::size_t n = 0; n < notes_.size(); ++n)
    if (!needed_[n]) notes_[n] = {};
  {
    const UseDevice here(*y_.device);
    Term seed = 1.0;
    if (request_.seed.has_value()) seed = record_cast(request_.seed.copy_to(y_.device->id), y_.dtype);
    deposit({y_, request_.y.shape()}, seed);
  }
  for (std::size_t n = notes_.size(); n-- > 0;) {
    if (!notes_[n]) continue;
    if (notes_[n]->checkpoint && !replayed_.contains(notes_[n].get())) replay(n);
    run_rule(*notes_[n], wants_[n]);
    notes_[n] = {};
  }
  std::vector<NArray> gradients;
  for (std::size_t i = 0; i < sources_.size(); ++i) gradients.push_back(gradient_of(i));
  return gradients;
}

// An array of what flows back to an operation: what it is computed from comes first.
NArray Backward::flowing_into(const Noted& noted) const {
  for (const NotedResult& result : noted.results()) {
    const auto found = flows_.find(result.value);
    if (found == flows_.end()) continue;
    const Flow& flow = found->second;
    for (const NArray& x : {flow.whole.array(), flow.sum, flow.parts.empty() ? NArray() : flow.parts[0].x})
      if (x.has_value() && x.shape().size() > 0) return x;
  }
  return request_.y;
}

// What the rules of the checkpoint of note `latest` will read, from there back: recorded at once, let go one by one.
void Backward::replay(std::size_t latest) {
  const auto checkpoint = notes_[latest]->checkpoint;
  std::vector<Checkpoint::Wanted> wanted;
  std::vector<NArray*> places;
  for (std::size_t n = latest + 1; n-- > 0;) {
    if (!notes_[n] || notes_[n]->checkpoint != checkpoint) continue;
    const Noted& noted = *notes_[n];
    Replayed& replayed = replayed_[&noted];
    replayed.operands.resize(noted.operands().size());
    replayed.results.resize(noted.results().size());
    const Saves saves = noted.saves_for(wants_[n]);
    for (std::size_t i = 0; i < replayed.operands.size(); ++i) {
      if (!saves_operand(saves, i) || !noted.operands()[i].is_replayed) continue;
      wanted.push_back({noted.number, false, i});
      places.push_back(&replayed.operands[i]);
    }
    for (std::size_t i = 0; i < replayed.results.size(); ++i) {
      if (!saves_result(saves, i)) continue;
      wanted.push_back({noted.number, true, i});
      places.push_back(&replayed.results[i]);
    }
  }
  auto arrays = checkpoint->replay(wanted, flowing_into(*notes_[latest]));
  for (std::size_t i = 0; i < arrays.size(); ++i) *places[i] = std::move(arrays[i]);
}

void Backward::run_rule(const Noted& noted, const std::vector<bool>& wants) {
  const RecordsFor records(*noted.device, noted.source);
  Replayed replayed;
  if (auto found = replayed_.extract(&noted)) replayed = std::move(found.mapped());
  std::vector<Term> errors;
  bool all_zero = true;
  for (const NotedResult& result : noted.results()) {
    Term error;
    if (const auto found = flows_.find(result.value); found != flows_.end()) {
      const UseDevice there(*result.type.device);  // an operation's results may live on others than its own
      error = total(found->second, result.type.shape);
      if (value_sources_.contains(result.value)) finished_[result.value] = error;
      flows_.erase(found);
    }
    all_zero &= error.is_zero();
    errors.push_back(std::move(error));
  }
  if (all_zero) {
    for (std::size_t i = 0; i < wants.size(); ++i)
      if (wants[i]) deposit(noted.operand(i), {});
    return;
  }
  TapeRule rule(noted, std::move(replayed), std::move(errors), wants, *this);
  noted.op->gradient->rule(rule);
  rule.require_all_given();
}

void Backward::deposit(const ShapedSlot& to, const Term& gradient) {
  const UseDevice here(*to.slot.device);
  if (dependents_.contains(to.slot.value())) add_to(flows_[to.slot.value()], to, gradient);
  to.slot.for_each_view([&](const Mark* mark) {
    const auto found = view_sources_.find(mark);
    if (found == view_sources_.end()) return;
    for (const std::size_t i : found->second) {
      if (to.same_place(source(i))) view_flows_[i].same = add(view_flows_[i].same, gradient);
      else add_to(view_flows_[i].other, to, gradient);
    }
  });
}

NArray Backward::gradient_of(std::size_t i) {
  const Slot& slot = sources_[i];
  const Shape& shape = source(i).shape;
  const UseDevice here(*slot.device);
  if (!value_sources_.contains(slot.value()) || (slot.own && view_sources_.contains(slot.own.get()))) {
    Term other = total(view_flows_[i].other, source(i).whole());
    if (other.is_array() && slot.view) {
      const Strides& strides = slot.view->strides;
      const bool is_dense = strides == shape.dense_strides();
      other = record_view(dense(other.array()), shape, slot.view->offset, is_dense ? nullptr : &strides);
    }
    return to_array(add(view_flows_[i].same, other), shape, slot.dtype);
  }
  if (const auto found = finished_.find(slot.value()); found != finished_.end())
    return to_array(found->second, shape, slot.dtype);
  const auto found = flows_.find(slot.value());
  return to_array(found == flows_.end() ? Term() : total(found->second, shape), shape, slot.dtype);
}

}  // namespace owl
