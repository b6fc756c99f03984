#include "base/hooks.h"

namespace owl {

constinit thread_local Source current_source;
RuntimeHooks runtime_hooks;

void set_runtime_hooks(const RuntimeHooks& hooks) { runtime_hooks = hooks; }

std::string place_of(const Source& source) {
  return source.code && runtime_hooks.place ? runtime_hooks.place(source) : "";
}

}  // namespace owl
