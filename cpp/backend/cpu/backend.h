// The CPU devices: the machine's own, simulated GPUs, and the null device.
#pragma once

#include <memory>

#include "device/device.h"

namespace owl::cpu {

std::unique_ptr<Device> make_device();
std::unique_ptr<Device> make_simulated_gpu(int index);
std::unique_ptr<Device> make_null_device();

}  // namespace owl::cpu
