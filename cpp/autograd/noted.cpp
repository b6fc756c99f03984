#include "autograd/noted.h"

#include <unordered_map>

namespace owl {

namespace {

struct Identity {
  Ref<Mark> again, first;  // `again` is held so that no other mark gets its address
};
thread_local std::unordered_map<const Mark*, Identity> identities;
std::atomic<int> threads_with_identities{0};  // cheaper to look at

bool is_whole(const Node& node) {
  return !node.base || node.alias || (node.offset == 0 && !node.strides && node.shape == node.whole_shape());
}

}  // namespace

void identify(Mark& again, Mark& first) {
  if (identities.empty()) threads_with_identities.fetch_add(1, std::memory_order_relaxed);
  identities.insert_or_assign(&again, Identity{Ref<Mark>::borrow(&again), Ref<Mark>::borrow(&first)});
}

void forget_identities() {
  if (identities.empty()) return;
  identities.clear();
  threads_with_identities.fetch_sub(1, std::memory_order_relaxed);
}

Mark& owner_mark(Node& node) {
  Mark& mark = (node.base ? *node.base : node).mark();
  if (threads_with_identities.load(std::memory_order_relaxed) == 0) [[likely]] return mark;
  const auto found = identities.find(&mark);
  return found == identities.end() ? mark : *found->second.first;
}

void Slot::set(Node& node) {
  owner = MarkUse(owner_mark(node));
  if (node.base) own = Ref<Mark>::borrow(&node.mark());
  if (node.made_of) made_of = node.made_of;
  result = node.result;
  dtype = node.dtype;
  device = node.device;
  if (!is_whole(node)) view = std::make_unique<const View>(View{node.offset, strides_of(node), node.whole_shape()});
}

bool ShapedSlot::same_place(const ShapedSlot& other) const {
  const auto &view = slot.view, &other_view = other.slot.view;
  if (!view != !other_view || !(shape == other.shape)) return false;
  return !view || (view->offset == other_view->offset && view->strides == other_view->strides);
}

void Noted::set_counts(std::size_t operands, std::size_t results) {
  operand_count_ = static_cast<std::uint32_t>(operands);
  result_count_ = static_cast<std::uint32_t>(results);
  if (operands > std::size(few_operands_)) many_operands_ = std::make_unique<NotedOperand[]>(operands);
  if (results > 1) many_results_ = std::make_unique<NotedResult[]>(results);
}

Saves Noted::saves_for(const std::vector<bool>& wants) const {
  Saves saves = 0;
  for (std::size_t i = 0; i < wants.size(); ++i)
    if (wants[i]) saves |= op->gradient->saved_for(i, params.get());
  return saves;
}

// A result that is saved is held by this very note: others hold it where it has more handles than that.
bool Noted::is_dead() const {
  if (made->is_used()) return false;
  int saved = 0;
  const Node* owner = nullptr;
  for (const NotedResult& each : results()) {
    const Node* node = each.saved.node();
    if (!node) continue;
    if (node->handles() > 1) return false;
    owner = node->base;
    ++saved;
  }
  if (saved == 0) return !made->alive.load(std::memory_order_acquire);
  return !owner || owner->handles() == saved;
}

}  // namespace owl
