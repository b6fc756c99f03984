#include "graph/node.h"

#include <cassert>

#include "base/counters.h"
#include "graph/sink.h"

namespace owl {

std::atomic<bool> nan_tracing{false};
constinit thread_local Noting* noting = nullptr;

namespace {
// Nodes that this thread has still to destroy: destroying a chain of a million must not recurse.
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

void Node::set_last_input(Node& node) {
  Node*& last = (more_inputs_ ? more_inputs_.get() : few_inputs_)[input_count - 1];
  assert(!last && !planned());
  last = &node;
  node.retain();
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
  if (!owner->planned()) return nullptr;
  return owner->results ? owner->results[result].storage.get() : owner->storage_.get();
}

Mark& Node::mark() {
  Mark* known = mark_.load(std::memory_order_acquire);
  if (known) return *known;
  auto made = Ref<Mark>::steal(new Mark);
  if (mark_.compare_exchange_strong(known, made.get(), std::memory_order_acq_rel)) return *made.detach();
  return *known;  // another thread was quicker
}

void Node::leave_mark() {
  Mark* mark = mark_.load(std::memory_order_acquire);
  if (!mark) return;
  mark->alive.store(false, std::memory_order_release);
  mark->release();
}

void Node::make_results(std::size_t count) {
  results.reset(new Result[count]);
  result_count = static_cast<std::uint16_t>(count);
}

void Node::set_base(Node& of, std::uint16_t which) {
  base = &of;
  result = which;
  if (of.results) of.results[which].nodes.fetch_add(1, std::memory_order_relaxed);
  of.retain_handle();
}

namespace {

// The value's last node is destroyed; at most the task that computes it still refers to the value.
void drop_value(Ref<Storage> value) {
  if (value && !value->ready() && value->refs() == 2) sink().give_up(std::move(value));
}

}  // namespace

void Node::leave_base() {
  if (base->results) {
    Result& of = base->results[result];
    if (of.nodes.fetch_sub(1, std::memory_order_acq_rel) == 1 && base->planned()) drop_value(std::move(of.storage));
  }
  base->release_handle();
}

void Node::destroy(Node* node) {
  node->next_dead_ = std::exchange(dead_list, node);
  if (destroying) return;
  destroying = true;
  while (Node* next = dead_list) {
    dead_list = next->next_dead_;
    assert(next->refs() == 0 && next->handles() == 0);
    next->leave_mark();
    next->clear_inputs();
    if (next->base) next->leave_base();
    if (next->has_been_copied) sink().forget_peer_copies(*next);
    drop_value(std::move(next->storage_));
    delete next;
  }
  destroying = false;
}

}  // namespace owl
