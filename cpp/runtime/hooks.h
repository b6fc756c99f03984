// Blocking with the host language's lock released.
#pragma once

#include <mutex>

#include "runtime/engine.h"

namespace owl {

extern RuntimeHooks runtime_hooks;

// While it lives, this thread may block without holding up the host language.
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
