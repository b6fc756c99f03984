// Loads libowl_cuda, which holds everything of CUDA, when a GPU is first asked for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/module_api.h"
#include "device/device.h"

namespace owl::gpu {

// What libowl_cuda exports, as `owl_cuda_library`. All throw DeviceError.
struct Library {
  int (*count)();
  std::unique_ptr<Device> (*make_device)(int index);
  void (*set_folders)(std::vector<std::string> folders);
};

int count();                                     // 0 where there is no library, driver or GPU
std::unique_ptr<Device> make_device(int index);  // DeviceError: what is missing and what to do

// Further folders with NVIDIA's libraries, before the first use. For front ends whose packages bring them.
OWL_MODULE_API void set_library_folders(std::vector<std::string> folders);
// For programs that hold the library's code themselves: the C++ tests.
void use_library(const Library& library);

}  // namespace owl::gpu
