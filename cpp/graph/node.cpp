#include "graph/node.h"

#include "graph/op.h"
#include "runtime/counters.h"
#include "runtime/device.h"
#include "runtime/engine.h"
#include "runtime/scheduler.h"

namespace owl {

constinit thread_local Source current_source;
Counters counters;
std::atomic<bool> nan_tracing{false};

namespace {
// Nodes of this thread that wait to be destroyed: a chain of a million must not recurse.
thread_local Node* dead_list = nullptr;
thread_local bool destroying = false;

// Storages of this thread whose memory is somebody else's, and how many scopes hold their release back.
thread_local std::vector<Storage*> foreign_list;
thread_local int deferrals = 0;
}  // namespace

Ref<Storage> Storage::create(const Node& node) {
  count(counters.live_storages);
  auto* s = new Storage(node.device, static_cast<std::size_t>(node.shape.size()) * itemsize(node.dtype));
  if (node.op) s->op = node.op->name;
  s->source = node.source;
  s->shape = node.shape;
  s->dtype = node.dtype;
  return Ref<Storage>::steal(s);
}

void Storage::destroy() {
  if (failure) Engine::get().forget_failure(*this);
  if (foreign_release) {
    if (deferrals > 0) return foreign_list.push_back(this);
    foreign_release(foreign);
  } else if (data) {
    device->allocator.give_back(*this);
  }
  count(counters.live_storages, -1);
  delete this;
}

Storage::DeferForeign::DeferForeign() { ++deferrals; }
Storage::DeferForeign::~DeferForeign() {
  if (--deferrals > 0) return;
  for (Storage* s : std::exchange(foreign_list, {})) s->destroy();
}

Node* Node::create() {
  count(counters.live_nodes);
  return new Node;
}

Node::~Node() { count(counters.live_nodes, -1); }

void Node::set_inputs(std::span<Node* const> nodes) {
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
    next->clear_inputs();
    if (next->base) next->base->release_handle();
    if (next->has_been_copied) Engine::get().forget_peer_copies(*next);
    if (const auto& value = next->storage_; value && !value->ready() && value->refs() == 2)  // ours and its task's
      Scheduler::get().give_up(std::move(next->storage_));
    delete next;
  }
  destroying = false;
}

}  // namespace owl
