// Kernels' texts, compiled for a GPU by NVRTC and kept on disk.
#pragma once

#include <string>

namespace owl::cuda {

// The machine code of a text for an architecture ("sm_90"). It is looked for in this process, then in the folder
// $XDG_CACHE_HOME/owl/kernels (or ~/.cache/owl/kernels), by the text, the architecture and NVRTC's version; what is
// compiled anew is written there. DeviceError with the compiler's words where it fails.
std::string compile(const std::string& text, const std::string& arch);

struct NvrtcVersion {
  int major = 0, minor = 0;
  bool operator==(const NvrtcVersion&) const = default;
};
// The file's name in that folder.
std::string cubin_name(const std::string& text, const std::string& arch, NvrtcVersion version);

// Called with every text that is asked for, where set: for the check that compiles them all.
extern void (*on_compile)(const std::string& text);

// What NVRTC is told besides the architecture.
inline constexpr const char* kCompilerOptions[] = {"--std=c++20",     "--fmad=false",     "--ftz=true",
                                                   "--prec-div=true", "--prec-sqrt=true", "--diag-suppress=177"};

}  // namespace owl::cuda
