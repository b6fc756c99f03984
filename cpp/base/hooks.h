// Functions of a host language (Python) for waiting and for messages.
#pragma once

#include <string>

#include "base/module_api.h"
#include "base/source.h"

namespace owl {

struct RuntimeHooks {
  void* (*before_block)() = nullptr;      // called before this thread blocks: e.g. releases the GIL, if held
  void (*after_block)(void*) = nullptr;   // gets before_block's result
  std::string (*place)(const Source&) = nullptr;  // "file:line"; called on any thread, without the language's lock
  bool (*interrupted)() = nullptr;        // polled about 20 times a second inside a block; true ends the wait
};
OWL_MODULE_API void set_runtime_hooks(const RuntimeHooks& hooks);
extern RuntimeHooks runtime_hooks;

// "file:line" if the front end knows it, else "".
std::string place_of(const Source& source);

// Around a wait: this thread blocks without holding the host language's lock.
class Blocking {
 public:
  Blocking() : token_(runtime_hooks.before_block ? runtime_hooks.before_block() : nullptr) {}
  ~Blocking() {
    if (runtime_hooks.after_block) runtime_hooks.after_block(token_);
  }
  bool interrupted() { return runtime_hooks.interrupted && runtime_hooks.interrupted(); }

 private:
  void* token_;
};

}  // namespace owl
