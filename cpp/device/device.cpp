#include "device/device.h"

namespace owl {

constinit thread_local Device* device_of_thread = nullptr;

}  // namespace owl
