#include "autograd/tape.h"

#include <algorithm>
#include <mutex>
#include <optional>

#include "autograd/backward.h"
#include "autograd/checkpoint.h"
#include "graph/op.h"
#include "ops/records.h"

namespace owl {

namespace {

// What was dropped just now is most of what ever will be: the latest notes are looked at often, all of them when they
// have become twice as many.
constexpr std::size_t kOften = 64, kLatest = 64, kFirstSweep = 256;

bool has_path(const Node& node) { return is_float(node.dtype) && !node.constant; }

bool leads_back(const Node& operation, std::span<Node* const> inputs, std::span<Node* const> results) {
  return operation.op->gradient->rule &&
         std::ranges::any_of(results, [](const Node* each) { return is_float(each->dtype); }) &&
         std::ranges::any_of(inputs, [](const Node* each) { return each && has_path(*each); });
}

NArray handle_on(Node* node) {
  node->retain_handle();
  return NArray::adopt(node);
}

// Of a mask as dropout draws it, stop_gradient(randb(...)), which is worth less than its memory: what draws it again.
std::unique_ptr<const Drawn> drawing_of(const Node& node) {
  if (!node.alias || !node.constant || node.base->op != &op_randb) return nullptr;
  return std::make_unique<const Drawn>(Drawn{node.base->op, node.base->params});
}

// Where an operation stands in a checkpoint.
struct Place {
  std::shared_ptr<Checkpoint> checkpoint;  // null: in none
  std::uint32_t number = 0;
};

Ref<const Noted> noted_of(const Node& operation, std::span<Node* const> inputs, std::span<Node* const> results,
                          const Place& place) {
  auto noted = Ref<Noted>::steal(new Noted);
  noted->op = operation.op;
  noted->params = operation.params;
  noted->source = operation.source;
  noted->device = operation.device;
  noted->compute = operation.compute;
  noted->checkpoint = place.checkpoint;
  noted->number = place.number;
  noted->set_counts(inputs.size(), results.size());
  Saves saves = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i] && has_path(*inputs[i])) saves |= operation.op->gradient->saved_for(i, operation.params.get());
  const auto operands = noted->operands();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    NotedOperand& x = operands[i];
    if (!inputs[i]) {
      x.number = operation.scalars[i].value;
      continue;
    }
    Node& node = *inputs[i];
    x.set(node);
    x.is_array = true;
    if (!(node.shape == results[0]->shape)) x.other_shape = std::make_unique<const Shape>(node.shape);
    x.has_path = has_path(node);
    if (!saves_operand(saves, i)) continue;
    x.drawn = drawing_of(node);
    x.is_replayed = !x.drawn && place.checkpoint && place.checkpoint->made(node);
    if (!x.drawn && !x.is_replayed) x.saved = handle_on(&node);
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    Node& node = *results[i];
    Mark& owner = (node.base ? *node.base : node).mark();
    if (i == 0) noted->made = Ref<Mark>::borrow(&owner);
    NotedResult& result = noted->results()[i];
    result.type.shape = node.shape;
    result.type.dtype = node.dtype;
    result.type.device = node.device;
    result.value = {&owner, node.result};
    if (saves_result(saves, i) && !place.checkpoint) result.saved = handle_on(&node);
  }
  return Ref<const Noted>::steal(noted.detach());
}

// The open tapes and checkpoints of this thread, the outermost first.
class OpenTapes final : public Noting {
 public:
  ~OpenTapes() { noting = nullptr; }

  void add(std::shared_ptr<TapeState> tape) {
    open_.push_back({std::move(tape), nullptr});
    noting = this;
  }
  // Null: no tape is open, so that there is nothing to do.
  const Checkpoint* begin_checkpoint() {
    drop_closed();
    if (open_.empty()) return nullptr;
    ++checkpoints_;
    return open_.emplace_back(nullptr, std::make_shared<Checkpoint>()).checkpoint.get();
  }
  void end_checkpoint(const Checkpoint* checkpoint) {
    checkpoints_ -= std::erase_if(open_, [=](const Open& each) { return each.checkpoint.get() == checkpoint; });
    drop_closed();
  }
  // Also of those that another thread has closed.
  void drop_closed() {
    std::erase_if(open_, [](const Open& each) { return each.tape && !each.tape->is_open(); });
    if (!open_.empty()) return;
    noting = nullptr;
    forget_identities();
  }

  // One note for all tapes: what it saves has one holder more, however many they are.
  void note(const Node& operation, std::span<Node* const> inputs, std::span<Node* const> results) override {
    if (checkpoints_ > 0) return note_in_checkpoints(operation, inputs, results);
    if (!leads_back(operation, inputs, results)) return;
    auto noted = noted_of(operation, inputs, results, {});
    bool closed = false;
    for (const Open& each : open_) {
      if (!each.tape->is_open()) closed = true;
      else if (&each == &open_.back()) each.tape->keep(std::move(noted));
      else each.tape->keep(noted);
    }
    if (closed) drop_closed();
  }

 private:
  struct Open {  // one of both
    std::shared_ptr<TapeState> tape;
    std::shared_ptr<Checkpoint> checkpoint;
  };

  // A tape around checkpoints has the operation from the outermost of them.
  void note_in_checkpoints(const Node& operation, std::span<Node* const> inputs, std::span<Node* const> results) {
    const bool is_noted = leads_back(operation, inputs, results);
    Place place;
    for (std::size_t i = open_.size(); i-- > 0;) {
      if (const auto& checkpoint = open_[i].checkpoint) {
        const auto number = checkpoint->add(operation, inputs, results);
        place = number ? Place{checkpoint, *number} : Place{};
      } else if (is_noted && open_[i].tape->is_open()) {
        open_[i].tape->keep(noted_of(operation, inputs, results, place));
      }
    }
  }

  std::vector<Open> open_;
  std::ptrdiff_t checkpoints_ = 0;
};
thread_local OpenTapes open_tapes;

}  // namespace

TapeState::TapeState(bool persistent) : persistent_(persistent) {}
TapeState::~TapeState() = default;

void TapeState::open() {
  {
    const std::lock_guard lock(lock_);
    if (thread_ != std::thread::id())
      throw Error(thread_ == std::this_thread::get_id()
                      ? "Tape: it was entered before; a tape is entered once"
                      : "Tape: another thread entered it; a tape belongs to one thread");
    thread_ = std::this_thread::get_id();
  }
  is_open_ = true;
  open_tapes.add(shared_from_this());
}

void TapeState::close() {
  if (thread_ != std::this_thread::get_id()) throw Error("Tape: it must be left on the thread that entered it");
  leave();
}

void TapeState::leave() {
  is_open_ = false;
  if (thread_ == std::this_thread::get_id()) open_tapes.drop_closed();
}

void TapeState::keep(Ref<const Noted> noted) {
  std::optional<Storage::DeferForeign> deferred;  // until the lock is gone
  const bool look = ++noted_ % kOften == 0;
  if (look) deferred.emplace();
  const std::lock_guard lock(lock_);
  if (used_up_) return;
  notes_.push_back(std::move(noted));
  if (!look) return;
  const std::size_t count = notes_.size();
  if (count < std::max(kFirstSweep, next_sweep_)) return sweep(count > kLatest ? count - kLatest : 0);
  sweep(0);
  next_sweep_ = 2 * notes_.size();
}

// From the latest back, so that whole dead chains go at once; without the one that was noted just now, whose result has
// not been handed out yet.
void TapeState::sweep(std::size_t begin) {
  for (std::size_t i = notes_.size() - 1; i-- > begin;)
    if (notes_[i]->is_dead()) notes_[i] = {};
  const auto from = notes_.begin() + static_cast<std::ptrdiff_t>(begin);
  notes_.erase(std::remove(from, notes_.end(), Ref<const Noted>()), notes_.end());
}

void TapeState::require_unused() const {
  if (used_up_)
    throw Error("gradient: the tape is used up: gradient was called before; a Tape(persistent=True) takes several "
                "calls");
}

std::vector<NArray> TapeState::gradient(const GradientRequest& request) {
  std::vector<Ref<const Noted>> notes;
  {
    const std::lock_guard lock(lock_);
    require_unused();
    notes = notes_;
  }
  Backward backward(std::move(notes), request);  // a mistake leaves the tape as it is
  if (!persistent_) {
    std::vector<Ref<const Noted>> dropped;  // after the lock
    const std::lock_guard lock(lock_);
    require_unused();
    used_up_ = true;
    dropped.swap(notes_);
  }
  if (!persistent_) leave();
  return backward.run();
}

Tape::Tape(bool persistent) : state_(std::make_shared<TapeState>(persistent)) { state_->open(); }
Tape::~Tape() { state_->leave(); }
void Tape::close() { state_->close(); }

std::vector<NArray> Tape::gradient(const NArray& y, const std::vector<NArray>& sources, const NArray& seed,
                                   Unused unused) {
  GradientRequest request{y, seed, sources, {}, unused == Unused::kZeros};
  for (std::size_t i = 0; i < sources.size(); ++i) request.names.push_back("source " + std::to_string(i));
  return state_->gradient(request);
}

detail::CheckpointScope::CheckpointScope() : checkpoint_(open_tapes.begin_checkpoint()) {}
detail::CheckpointScope::~CheckpointScope() {
  if (checkpoint_) open_tapes.end_checkpoint(checkpoint_);
}

NArray stop_gradient(const NArray& x) {
  if (!x.has_value()) throw Error("stop_gradient: an empty NArray has no value; assign one first");
  return record_alias(x, true);
}

}  // namespace owl
