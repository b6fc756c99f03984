// What is asked of a tape.
#pragma once

#include <string>
#include <vector>

#include "owl/narray.h"

namespace owl {

struct GradientRequest {
  NArray y, seed;
  std::vector<NArray> sources;
  std::vector<std::string> names;  // of the sources, in messages
  bool zeros_for_unused = false;
};

}  // namespace owl
