#include "graph/node.h"

#include <cassert>

#include "base/counters.h"
#include "graph/sink.h"

namespace owl {

std::atomic<bool> nan_tracing{false};

namespace {
// Nodes of this thread that wait to be destroyed: a chain of a million must not recurse.
thread_local Node* dead_list = nullptr;
thread_local bool destroying = false;
}  // namespace

Node* Node::create() {
  count(counters.live_nodes);
  return new Node;
}

Node::~Node() { count(counters.live_nodes, -1); }

void Node::set_inputs(std::span<Node* const> nodes) {
  assert(input_count == 0);
  input_count = static_cast<std::uint32_t>(nodes.size());
  if (nodes.size() > kInlineInputs) more_inputs_.reset(new Node*[nodes.size()]);
  Node** to = more_inputs_ ? more_inputs_.get() : few_inputs_;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    to[i] = nodes[i];
    if (nodes[i]) nodes[i]->retain();
  }
}

void Node::clear_inputs() {
  Node** from = more_inputs_ ? more_inputs_.get() : few_inputs_;
  for (std::uint32_t i = 0; i < input_count; ++i)
    if (Node* input = std::exchange(from[i], nullptr)) input->release();
  input_count = 0;
  more_inputs_.reset();
}

Storage* Node::storage() const {
  const Node* owner = base ? base : this;
  return owner->planned() ? owner->storage_.get() : nullptr;
}

void Node::destroy(Node* node) {
  node->next_dead_ = std::exchange(dead_list, node);
  if (destroying) return;
  destroying = true;
  while (Node* next = dead_list) {
    dead_list = next->next_dead_;
    assert(next->refs() == 0 && next->handles() == 0);
    next->clear_inputs();
    if (next->base) next->base->release_handle();
    if (next->has_been_copied) sink().forget_peer_copies(*next);
    if (const auto& value = next->storage_; value && !value->ready() && value->refs() == 2)  // ours and its task's
      sink().give_up(std::move(next->storage_));
    delete next;
  }
  destroying = false;
}

}  // namespace owl
