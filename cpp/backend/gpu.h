// Loads libowl_cuda, which has all CUDA code, when a program first asks for a GPU.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/module_api.h"
#include "device/device.h"

namespace owl::gpu {

// The functions that libowl_cuda exports, as `owl_cuda_library`. All throw DeviceError.
struct Library {
  int (*count)();
  std::unique_ptr<Device> (*make_device)(int index);
  void (*set_folders)(std::vector<std::string> folders);
};

int count();                                     // 0 without library, driver or GPU
std::unique_ptr<Device> make_device(int index);  // DeviceError: what is missing and what to do

// Adds folders with NVIDIA's libraries; call it before the first use. For front ends whose packages include them.
OWL_MODULE_API void set_library_folders(std::vector<std::string> folders);
// For programs that link the library's code directly: the C++ tests.
void use_library(const Library& library);

}  // namespace owl::gpu
