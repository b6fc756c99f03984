#include "autograd/backward.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "base/hooks.h"
#include "device/device.h"
#include "graph/op.h"
#include "ops/add_view.h"
#include "ops/terms.h"

namespace owl {

namespace {

// Operations recorded while it lives are the forward operation's: on its device, from its line.
class RecordsFor {
 public:
  explicit RecordsFor(const Noted& noted) : device_(*noted.device), caller_(std::exchange(current_source, noted.source)) {}
  ~RecordsFor() { current_source = caller_; }
  RecordsFor(const RecordsFor&) = delete;
  RecordsFor& operator=(const RecordsFor&) = delete;

 private:
  UseDevice device_;
  Source caller_;
};

bool is_elementwise(const OpRecord& op) { return op.cls == OpRecord::Class::kElementwise; }

std::string type_text(const NArray& x) { return std::string(name(x.dtype())); }

// ---- views

// The axes that have more than one element, by their strides; none where these do not run through all of the value.
std::vector<int> order_of_memory(const Slot& slot) {
  std::vector<int> axes;
  for (int i = 0; i < slot.shape.ndim(); ++i)
    if (slot.shape[i] > 1) axes.push_back(i);
  const auto stride = [&](int axis) { return std::abs(slot.view->strides[static_cast<std::size_t>(axis)]); };
  std::ranges::sort(axes, {}, stride);
  std::int64_t step = 1;
  for (const int axis : axes) {
    if (stride(axis) != step) return {};
    step *= slot.shape[axis];
  }
  return axes;
}

// The gradient of a value from that of a view that has all of its elements, in another order: a view too, where it can be.
NArray put_back(const NArray& gradient, const Slot& slot, const std::vector<int>& order) {
  std::vector<IndexItem> items;
  for (int i = 0; i < slot.shape.ndim(); ++i) {
    const std::int64_t n = slot.shape[i];
    if (n > 1 && slot.view->strides[static_cast<std::size_t>(i)] < 0) items.push_back({IndexItem::Kind::kSlice, n - 1, n, -1});
    else if (n > 1) items.push_back({IndexItem::Kind::kSlice, 0, n, 1});
    else items.push_back({IndexItem::Kind::kInteger, 0});
  }
  if (order.empty()) return gradient.reshape(std::vector<std::int64_t>(slot.view->whole.begin(), slot.view->whole.end()));
  std::vector<std::int64_t> axes;  // `order`, counted without the axes that went
  for (const int axis : order)
    axes.push_back(std::ranges::count_if(order, [&](int other) { return other < axis; }));
  const NArray ordered = gradient.index(items).transpose(axes);
  if (ordered.shape() == slot.view->whole) return ordered;
  return ordered.reshape(std::vector<std::int64_t>(slot.view->whole.begin(), slot.view->whole.end()));
}

void add_to(Flow& flow, const Slot& slot, const Term& gradient) {
  flow.reached = true;
  if (gradient.is_zero() || slot.shape.size() == 0) return;
  if (!slot.view) {
    flow.whole = add(flow.whole, gradient);
    return;
  }
  if (slot.shape.size() == slot.view->whole.size()) {
    const auto order = order_of_memory(slot);
    if (!order.empty() || slot.shape.size() == 1) {
      flow.whole = add(flow.whole, gradient.is_array() ? Term(put_back(gradient.array(), slot, order)) : gradient);
      return;
    }
  }
  const NArray part = to_array(gradient, slot.shape, slot.dtype);
  if (!flow.parts.has_value()) flow.parts = zeros(slot.view->whole, slot.dtype);
  NArray parts = std::move(flow.parts);
  flow.parts = add_view(std::move(parts), part, slot.view->offset, slot.view->strides);
}

Term total(const Flow& flow) { return flow.parts.has_value() ? add(flow.whole, flow.parts) : flow.whole; }

// ---- one operation

class TapeRule final : public Rule {
 public:
  TapeRule(const Noted& noted, std::vector<Term> errors, const std::vector<bool>& wants, Backward& backward)
      : Rule(noted.params), noted_(noted), errors_(std::move(errors)), wants_(wants), backward_(backward),
        operands_(noted.operands().size()), given_(wants) {
    for (std::size_t i = 0; i < operands_.size(); ++i) operands_[i] = term_of(i);
  }

  const Term& error(std::size_t i) const override { return errors_[i]; }
  const Term& operand(std::size_t i) const override { return operands_[i]; }
  const NArray& result(std::size_t i) const override { return noted_.results()[i].saved; }
  std::size_t operand_count() const override { return operands_.size(); }
  const Shape& shape(std::size_t i) const override { return noted_.operands()[i].shape; }
  const ResultType& result_type(std::size_t i) const override { return noted_.results()[i].type; }
  bool wants(std::size_t i) const override { return wants_[i]; }
  void require_all_given() const {
    if (std::ranges::count(given_, true) > 0)
      throw Error(std::string("internal error: the gradient of ") + noted_.op->name + " leaves out an operand");
  }

 private:
  Term term_of(std::size_t i) const {
    const NotedOperand& x = noted_.operands()[i];
    if (!x.is_array) return x.number.value;
    if (!x.saved.has_value()) return {};
    const bool converts = is_elementwise(*noted_.op) && noted_.op->rule != TypeRule::kCast &&
                          !(noted_.op->rule == TypeRule::kSelect && i == 0);
    return converts ? record_cast(x.saved, noted_.compute) : x.saved;
  }

  void accept(std::size_t i, Term gradient) override {
    const NotedOperand& x = noted_.operands()[i];
    given_[i] = false;
    const Shape& from = is_elementwise(*noted_.op) ? noted_.results()[0].type.shape : x.shape;
    gradient = sum_to(broadcast_to(gradient, from), from, x.shape);
    if (gradient.is_array()) {
      gradient = record_cast(gradient.array(), x.dtype);
      if (gradient.array().device() != x.device->id) gradient = gradient.array().copy_to(x.device->id);
    }
    backward_.deposit(x, gradient);
  }

  const Noted& noted_;
  const std::vector<Term> errors_;
  const std::vector<bool>& wants_;
  Backward& backward_;
  std::vector<Term> operands_;
  std::vector<bool> given_;
};

}  // namespace

Backward::Backward(std::vector<std::shared_ptr<const Noted>> notes, const GradientRequest& request)
    : notes_(std::move(notes)), request_(request), used_(request.sources.size()), view_flows_(request.sources.size()) {
  check_arrays();
  y_ = Slot(*request.y.node());
  for (std::size_t i = 0; i < request.sources.size(); ++i) {
    const Slot& source = sources_.emplace_back(*request.sources[i].node());
    if (source.own == source.owner || (request.sources[i].node()->base->results && !source.view)) value_sources_.insert(source.value());
    else derived_[source.own.get()].push_back(i);
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
    throw ShapeError("gradient: y has shape " + shape.str() + ", which is not one number; sum it, or give a seed of its shape");
  if (request_.seed.has_value()) {
    require_float(request_.seed, "the seed");
    if (!(request_.seed.shape() == shape))
      throw ShapeError("gradient: the seed has shape " + request_.seed.shape().str() + ", y has " + shape.str() +
                       "; they must be the same");
  }
  for (std::size_t i = 0; i < request_.sources.size(); ++i) require_float(request_.sources[i], request_.names[i]);
  if (notes_.empty())
    throw Error("gradient: nothing was noted on the tape; what y is computed from must be recorded inside its block");
}

// Forward: what depends on a source.
void Backward::find_dependents() {
  dependents_ = value_sources_;
  wants_.resize(notes_.size());
  for (std::size_t n = 0; n < notes_.size(); ++n) {
    const Noted& noted = *notes_[n];
    if (!noted.op) {
      const auto parent = derived_.find(noted.operands()[0].own.get());
      if (parent == derived_.end()) continue;
      const Sources from = parent->second;
      Sources& of = derived_[noted.made.get()];
      of.insert(of.end(), from.begin(), from.end());
      continue;
    }
    std::vector<bool> wants(noted.operands().size());
    bool any = false;
    for (std::size_t i = 0; i < wants.size(); ++i) {
      const NotedOperand& x = noted.operands()[i];
      wants[i] = x.has_path && (dependents_.contains(x.value()) || derived_.contains(x.own.get()));
      any |= wants[i];
    }
    if (!any) continue;
    wants_[n] = std::move(wants);
    for (const NotedResult& result : noted.results())
      if (is_float(result.type.dtype)) dependents_.insert(result.value);
  }
}

// Back: what y depends on.
void Backward::find_needed() {
  std::unordered_set<ValueId, HashOfValue> reached;
  const auto reach = [&](const Slot& slot) {
    reached.insert(slot.value());
    if (const auto found = derived_.find(slot.own.get()); found != derived_.end())
      for (const std::size_t source : found->second) used_[source] = true;
  };
  if (!request_.y.node()->constant) reach(y_);
  needed_.resize(notes_.size());
  for (std::size_t n = notes_.size(); n-- > 0;) {
    if (wants_[n].empty()) continue;
    const Noted& noted = *notes_[n];
    if (std::ranges::none_of(noted.results(), [&](const NotedResult& r) { return reached.contains(r.value); })) continue;
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
  for (std::size_t i = 0; i < used_.size(); ++i)
    if (!used_[i] && !request_.zeros_for_unused)
      throw Error("gradient: y does not depend on " + request_.names[i] +
                  " by operations on this tape that have a gradient; unused=\"zeros\" gives zeros");
  for (std::size_t n = 0; n < notes_.size(); ++n) {
    if (!needed_[n]) continue;
    const Noted& noted = *notes_[n];
    if (!noted.op->gradient->exists || noted.op->gradient->exists(noted.params.get())) continue;
    const std::string place = place_of(noted.source);
    throw Error("gradient: the operation " + std::string(noted.op->name) + (place.empty() ? "" : ", recorded at " + place + ",") +
                " has no backward function");
  }
}

std::vector<NArray> Backward::run() {
  for (std::size_t n = 0; n < notes_.size(); ++n)
    if (!needed_[n]) notes_[n].reset();
  {
    const UseDevice here(*y_.device);
    Term seed = 1.0;
    if (request_.seed.has_value()) seed = record_cast(request_.seed.copy_to(y_.device->id), y_.dtype);
    deposit(y_, seed);
  }
  for (std::size_t n = notes_.size(); n-- > 0;) {
    if (!notes_[n]) continue;
    run_rule(*notes_[n], wants_[n]);
    notes_[n].reset();
  }
  std::vector<NArray> gradients;
  for (std::size_t i = 0; i < sources_.size(); ++i) gradients.push_back(gradient_of(i));
  return gradients;
}

void Backward::run_rule(const Noted& noted, const std::vector<bool>& wants) {
  const RecordsFor records(noted);
  std::vector<Term> errors;
  bool all_zero = true;
  for (const NotedResult& result : noted.results()) {
    Term error;
    if (const auto found = flows_.find(result.value); found != flows_.end()) {
      error = total(found->second);
      if (value_sources_.contains(result.value)) finished_[result.value] = error;
      flows_.erase(found);
    }
    all_zero &= error.is_zero();
    errors.push_back(std::move(error));
  }
  if (all_zero) {
    for (std::size_t i = 0; i < wants.size(); ++i)
      if (wants[i]) deposit(noted.operands()[i], {});
    return;
  }
  TapeRule rule(noted, std::move(errors), wants, *this);
  noted.op->gradient->rule(rule);
  rule.require_all_given();
}

void Backward::deposit(const Slot& slot, const Term& gradient) {
  const UseDevice here(*slot.device);
  if (dependents_.contains(slot.value())) add_to(flows_[slot.value()], slot, gradient);
  const auto found = derived_.find(slot.own.get());
  if (found == derived_.end()) return;
  for (const std::size_t i : found->second) {
    if (slot.same_place(sources_[i])) view_flows_[i].same = add(view_flows_[i].same, gradient);
    else add_to(view_flows_[i].other, slot, gradient);
  }
}

NArray Backward::gradient_of(std::size_t i) {
  const Slot& source = sources_[i];
  const UseDevice here(*source.device);
  if (!value_sources_.contains(source.value()) || derived_.contains(source.own.get())) {
    Term gradient = view_flows_[i].same;
    Term other = total(view_flows_[i].other);
    if (other.is_array() && source.view) {
      const bool is_dense = source.view->strides == source.shape.dense_strides();
      other = record_view(dense(other.array()), source.shape, source.view->offset, is_dense ? nullptr : &source.view->strides);
    }
    gradient = add(gradient, other);
    return to_array(gradient, source.shape, source.dtype);
  }
  if (const auto found = finished_.find(source.value()); found != finished_.end())
    return to_array(found->second, source.shape, source.dtype);
  const auto found = flows_.find(source.value());
  return to_array(found == flows_.end() ? Term() : total(found->second), source.shape, source.dtype);
}

}  // namespace owl
