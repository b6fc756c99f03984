#include "autograd/noted.h"

namespace owl {

namespace {

bool is_whole(const Node& node) {
  return !node.base || node.alias || (node.offset == 0 && !node.strides && node.shape == node.whole_shape());
}

}  // namespace

Slot::Slot(Node& node)
    : owner(Ref<Mark>::borrow(&(node.base ? *node.base : node).mark())),
      own(node.base ? Ref<Mark>::borrow(&node.mark()) : owner),
      result(node.result),
      dtype(node.dtype),
      device(node.device),
      shape(node.shape) {
  if (!is_whole(node)) view = std::make_unique<const View>(View{node.offset, strides_of(node), node.whole_shape()});
}

bool Slot::same_place(const Slot& other) const {
  if (!view != !other.view || !(shape == other.shape)) return false;
  return !view || (view->offset == other.view->offset && view->strides == other.view->strides);
}

Noted::~Noted() {
  if (!uses_) return;
  for (NotedOperand& each : operands()) {
    if (each.owner) each.owner->uses.fetch_sub(1, std::memory_order_relaxed);
    if (each.own) each.own->uses.fetch_sub(1, std::memory_order_relaxed);
  }
}

void Noted::use_operands() {
  uses_ = true;
  for (NotedOperand& each : operands()) {
    if (each.owner) each.owner->uses.fetch_add(1, std::memory_order_relaxed);
    if (each.own) each.own->uses.fetch_add(1, std::memory_order_relaxed);
  }
}

// A result that is saved is held by this very note: others hold it where it has more handles than that.
bool Noted::is_dead() const {
  if (made->uses.load(std::memory_order_relaxed) > 0) return false;
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
