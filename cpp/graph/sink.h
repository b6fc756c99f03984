// Where recorded operations go: what the graph knows of the engine behind it.
#pragma once

#include <optional>

#include "base/module_api.h"
#include "base/ref.h"

namespace owl {

class Device;
class Node;
class Storage;
struct EffectLink;

class Sink {
 public:
  virtual Device& current_device() = 0;    // of this thread
  virtual Device& device(int id) = 0;      // DeviceError for an unknown id
  // Takes a reference; may plan older operations, may wait at the bounds. `link`: of an effect, joined in the order in
  // which operations are recorded.
  virtual void append(Node* node, EffectLink* link = nullptr) = 0;
  virtual void start(Node* node) = 0;      // plans what the value needs
  // False: timed out. Throws the value's failure.
  virtual bool wait(Node* node, std::optional<double> timeout_s) = 0;
  // No handle, operation or task asks for the value any more, except the task that was to compute it.
  virtual void give_up(Ref<Storage> value) = 0;
  // Memory for data that the script brings; may wait for running work. OutOfMemoryError when nothing can help.
  virtual void allocate_for_data(Storage& storage) = 0;
  // The value on another device: copied on first use and kept beside the node. A copy that failed although the value did
  // not is made anew.
  virtual Ref<Node> peer_copy_of(Node* node, Device* device, Ref<Node> (*make)(Node*, Device*)) = 0;
  virtual void forget_peer_copies(Node& node) = 0;  // the node is about to go

 protected:
  ~Sink() = default;
};

// The engine of this process (runtime/engine.cpp).
OWL_MODULE_API Sink& sink();

}  // namespace owl
