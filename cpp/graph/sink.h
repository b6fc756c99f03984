// The graph's interface to the engine: takes recorded operations.
#pragma once

#include <cstddef>
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
  // Takes a reference; may plan older operations, or wait for running ones. `link`: of an effect, joined in the order
  // of recording.
  virtual void append(Node* node, EffectLink* link = nullptr) = 0;
  virtual void start(Node* node) = 0;      // plans the operations that the value needs
  // False: timed out. Throws the value's failure.
  virtual bool wait(Node* node, std::optional<double> timeout_s) = 0;
  // No handle, operation or task needs the value, except the task that would compute it.
  virtual void give_up(Ref<Storage> value) = 0;
  // Memory for imported data; may wait for running work. OutOfMemoryError: no running or waiting task would free
  // enough.
  virtual void allocate_for_data(Storage& storage) = 0;
  // Copies memory of the host to memory that the host can access; idle workers of the device take part.
  virtual void copy_memory(Device& device, void* to, const void* from, std::size_t bytes) = 0;
  // The value on another device: copied on first use and cached with the node. A copy that failed, of a value that did
  // not, is made again.
  virtual Ref<Node> peer_copy_of(Node* node, Device* device, Ref<Node> (*make)(Node*, Device*)) = 0;
  virtual void forget_peer_copies(Node& node) = 0;  // the node is about to be destroyed

 protected:
  ~Sink() = default;
};

// The engine of this process (runtime/engine.cpp).
OWL_MODULE_API Sink& sink();

}  // namespace owl
