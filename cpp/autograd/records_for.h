// Recording again on behalf of an operation that a tape noted.
#pragma once

#include <utility>

#include "base/source.h"
#include "device/device.h"

namespace owl {

// Operations recorded while it lives are the noted one's: on its device, from its line.
class RecordsFor {
 public:
  RecordsFor(Device& device, const Source& source)
      : device_(device), caller_(std::exchange(current_source, source)) {}
  ~RecordsFor() { current_source = caller_; }
  RecordsFor(const RecordsFor&) = delete;
  RecordsFor& operator=(const RecordsFor&) = delete;

 private:
  UseDevice device_;
  Source caller_;
};

}  // namespace owl
