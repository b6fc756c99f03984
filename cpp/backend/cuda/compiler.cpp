#include "backend/cuda/compiler.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend/cuda/api.h"
#include "base/env.h"
#include "base/replace_file.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

namespace fs = std::filesystem;

// FNV-1a, twice with different initial values.
std::string digest(const std::string& text) {
  std::uint64_t hash[2] = {0xcbf29ce484222325, 0x84222325cbf29ce4};
  for (const char c : text)
    for (auto& h : hash) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  char name[40];
  std::snprintf(name, sizeof name, "%016llx%016llx", static_cast<unsigned long long>(hash[0]),
                static_cast<unsigned long long>(hash[1]));
  return name;
}

// Empty if there is no folder for files.
fs::path cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) return fs::path(cache) / "owl/kernels";
  if (const char* home = std::getenv("HOME"); home && *home) return fs::path(home) / ".cache/owl/kernels";
  return {};
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  if (file) all << file.rdbuf();
  return all.str();
}

// Atomic, because another process may read or write the same file. Failing to write is not an error.
void write(const fs::path& path, const std::string& bytes) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  try {
    replace_file(path.string(), bytes);
  } catch (const Error&) {
  }
}

// NVRTC is a large library, and a script whose kernels are all on disk needs only its version. So the folder's file
// `nvrtc` records the version of the library opened last, with the library's path, size and time.
std::string identity_of(const std::string& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return {};
  const auto time = fs::last_write_time(path, error).time_since_epoch().count();
  return error ? "" : path + "\n" + std::to_string(size) + " " + std::to_string(time);
}

std::optional<NvrtcVersion> noted_version(const fs::path& folder) {
  std::istringstream note(read(folder / "nvrtc"));
  std::string path, file;
  NvrtcVersion version;
  if (!std::getline(note, path) || !std::getline(note, file) || !(note >> version.major >> version.minor)) return {};
  if (path + "\n" + file != identity_of(path)) return {};
  return version;
}

// Opens NVRTC. Does not record one that another library of the process has opened: the next process may find another.
NvrtcVersion open_nvrtc(const fs::path& folder) {
  static std::optional<NvrtcVersion> known;
  if (known) return *known;
  const bool was_open = is_open(kNvrtc);
  NvrtcVersion version;
  check(nvrtc().nvrtcVersion(&version.major, &version.minor), "opening NVRTC");
  Dl_info info{};
  if (!was_open && !folder.empty() && dladdr(reinterpret_cast<const void*>(nvrtc().nvrtcVersion), &info))
    if (const auto identity = identity_of(info.dli_fname); !identity.empty())
      write(folder / "nvrtc",
            identity + "\n" + std::to_string(version.major) + " " + std::to_string(version.minor) + "\n");
  return *(known = version);
}

std::string compile_now(const std::string& text, const std::string& arch) {
  const Nvrtc& n = nvrtc();
  nvrtcProgram program = nullptr;
  check(n.nvrtcCreateProgram(&program, text.c_str(), "owl.cu", 0, nullptr, nullptr), "compiling a kernel");
  const auto architecture = "--gpu-architecture=" + arch;
  std::vector<const char*> options{architecture.c_str()};
  options.insert(options.end(), std::begin(kCompilerOptions), std::end(kCompilerOptions));
  const auto result = n.nvrtcCompileProgram(program, static_cast<int>(options.size()), options.data());
  std::string log, code;
  std::size_t size = 0;
  if (result != NVRTC_SUCCESS) {
    if (n.nvrtcGetProgramLogSize(program, &size) == NVRTC_SUCCESS) {
      log.resize(size);
      n.nvrtcGetProgramLog(program, log.data());
    }
  } else if (n.nvrtcGetCUBINSize(program, &size) == NVRTC_SUCCESS) {
    code.resize(size);
    n.nvrtcGetCUBIN(program, code.data());
  }
  n.nvrtcDestroyProgram(&program);
  if (code.empty())
    throw DeviceError("compiling a kernel for " + arch + ": NVRTC reported: " + n.nvrtcGetErrorString(result) +
                      (log.empty() ? "" : "\n" + log));
  return code;
}

}  // namespace

void (*on_compile)(const std::string& text) = nullptr;

std::string cubin_name(const std::string& text, const std::string& arch, NvrtcVersion version) {
  std::string all = arch + " " + std::to_string(version.major) + "." + std::to_string(version.minor) + " ";
  for (const char* option : kCompilerOptions) all += option;
  return digest(all + text) + ".cubin";
}

std::string compile(const std::string& text, const std::string& arch) {
  if (on_compile) on_compile(text);
  static std::mutex mutex;
  static auto& known = *new std::unordered_map<std::string, std::string>;
  static std::optional<NvrtcVersion> version;
  std::lock_guard lock(mutex);
  const auto folder = cache_folder();
  if (!version && !is_open(kNvrtc) && !folder.empty()) version = noted_version(folder);
  if (!version) version = open_nvrtc(folder);
  while (true) {
    const auto name = cubin_name(text, arch, *version);
    if (const auto found = known.find(name); found != known.end()) return found->second;
    std::string code = folder.empty() ? "" : read(folder / name);
    if (code.empty()) {
      const auto here = open_nvrtc(folder);
      if (std::exchange(version, here) != here) continue;  // another library than the recorded one
      if (settings().log_run) log_line("compile a kernel for " + arch);
      code = compile_now(text, arch);
      if (!folder.empty()) write(folder / name, code);
    }
    return known.emplace(name, std::move(code)).first->second;
  }
}

}  // namespace owl::cuda
