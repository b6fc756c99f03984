// What a host language (Python) adds to waiting and to messages.
#pragma once

#include <string>

#include "base/module_api.h"
#include "base/source.h"

namespace owl {

struct RuntimeHooks {
  void* (*before_block)() = nullptr;      // this thread is about to block: e.g. release the GIL, if it holds it
  void (*after_block)(void*) = nullptr;   // gets what before_block returned
  std::string (*place)(const Source&) = nullptr;  // "file:line"; called on any thread, without the language's lock
  bool (*interrupted)() = nullptr;        // polled about 20 times a second inside a block; true ends the wait
};
OWL_MODULE_API void set_runtime_hooks(const RuntimeHooks& hooks);
extern RuntimeHooks runtime_hooks;

// "file:line" where the front end can tell, else "".
std::string place_of(const Source& source);

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
