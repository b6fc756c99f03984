// Compiles kernels' texts for a GPU by NVRTC, and caches the results on disk.
#pragma once

#include <string>

namespace owl::cuda {

// The machine code of a text for an architecture ("sm_90"): from this process's cache, then from the folder
// $XDG_CACHE_HOME/owl/kernels (or ~/.cache/owl/kernels), by the text, the architecture and NVRTC's version; otherwise
// compiled and written there. DeviceError, with the compiler's messages: compiling failed.
std::string compile(const std::string& text, const std::string& arch);

struct NvrtcVersion {
  int major = 0, minor = 0;
  bool operator==(const NvrtcVersion&) const = default;
};
// The file's name in that folder.
std::string cubin_name(const std::string& text, const std::string& arch, NvrtcVersion version);

// If set, called with every requested text: for the check that compiles all of them.
extern void (*on_compile)(const std::string& text);

// NVRTC's options besides the architecture.
inline constexpr const char* kCompilerOptions[] = {"--std=c++20",     "--fmad=false",     "--ftz=true",
                                                   "--prec-div=true", "--prec-sqrt=true", "--diag-suppress=177"};

}  // namespace owl::cuda
