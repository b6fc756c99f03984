// Where the script recorded an operation.
#pragma once

#include <cstdint>

#include "base/module_api.h"

namespace owl {

// Opaque to the engine: a front end sets `current_source` before it records and converts a Source to "file:line"
// (RuntimeHooks::place).
struct Source {
  const void* code = nullptr;
  std::int32_t offset = -1;
  bool operator==(const Source&) const = default;
};
OWL_MODULE_API extern constinit thread_local Source current_source;

}  // namespace owl
