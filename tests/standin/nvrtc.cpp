// NVRTC: the host's compiler, $CXX or c++, compiles programs into shared libraries, which stand in for cubins. Each
// contains its own text, as `standin_text`, for the real compiler (STANDIN_CUDA_TEXTS).
#include "standin.h"

#include <fcntl.h>
#include <nvrtc.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

extern "C" char** environ;

struct _nvrtcProgram {
  std::string text, log, code;
};

namespace {

namespace fs = std::filesystem;
using standin::words_of;

const char* setting(const char* name, const char* otherwise) {
  const char* const text = std::getenv(name);
  return text && *text ? text : otherwise;
}

std::string read(const fs::path& path) {
  std::ostringstream all;
  if (std::ifstream file(path, std::ios::binary); file) all << file.rdbuf();
  return all.str();
}

// Runs a command with its output in a file; true on success.
bool run(const std::vector<std::string>& words, const std::string& output) {
  std::vector<char*> arguments, variables;
  for (const auto& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  // The compiler must not load this process's sanitizer.
  for (char** at = environ; *at; ++at)
    if (std::strncmp(*at, "LD_PRELOAD=", 11) != 0) variables.push_back(*at);
  variables.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed) {
    std::ofstream(output) << words[0] << ": " << std::strerror(failed) << "\n";
    return false;
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

nvrtcResult copy_out(const std::string& text, std::size_t bytes, char* to) {
  if (!to) return NVRTC_ERROR_INVALID_INPUT;
  std::memcpy(to, text.c_str(), bytes);
  return NVRTC_SUCCESS;
}

}  // namespace

const char* nvrtcGetErrorString(nvrtcResult result) {
  switch (result) {
    case NVRTC_SUCCESS: return "NVRTC_SUCCESS";
    case NVRTC_ERROR_OUT_OF_MEMORY: return "NVRTC_ERROR_OUT_OF_MEMORY";
    case NVRTC_ERROR_INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case NVRTC_ERROR_INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case NVRTC_ERROR_INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case NVRTC_ERROR_COMPILATION: return "NVRTC_ERROR_COMPILATION";
    case NVRTC_ERROR_INTERNAL_ERROR: return "NVRTC_ERROR_INTERNAL_ERROR";
    default: return "NVRTC_ERROR unknown";
  }
}

// A version that NVIDIA's never has, different for each compiler and its flags, so that a cache of compiled kernels
// confuses these neither with a GPU's nor with those of other flags.
nvrtcResult nvrtcVersion(int* major, int* minor) {
  STANDIN_LIBRARY(nvrtcResult, nvrtcVersion);
  if (!major || !minor) return NVRTC_ERROR_INVALID_INPUT;
  // The number 2 is this file's version: excludes kernels that an earlier version compiled.
  const std::string flags = setting("CXX", "c++") + std::string(" 2 ") + setting("STANDIN_CUDA_CXXFLAGS", "");
  *major = 13;
  *minor = 1000 + static_cast<int>(std::hash<std::string>{}(flags) % 1000000);
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram* program, const char* text, const char*, int headers, const char* const*,
                               const char* const*) {
  STANDIN_LIBRARY(nvrtcResult, nvrtcCreateProgram);
  if (!program || !text || headers != 0) return NVRTC_ERROR_INVALID_INPUT;
  *program = new _nvrtcProgram;
  (*program)->text = text;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
  STANDIN_LIBRARY(nvrtcResult, nvrtcDestroyProgram);
  if (!program || !*program) return NVRTC_ERROR_INVALID_PROGRAM;
  delete std::exchange(*program, nullptr);
  return NVRTC_SUCCESS;
}

// Uses only the options that define macros.
nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char* const* options) {
  STANDIN_LIBRARY(nvrtcResult, nvrtcCompileProgram);
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  std::error_code error;
  auto folder = fs::temp_directory_path(error).string() + "/standin_nvrtc_XXXXXX";
  if (!mkdtemp(folder.data())) return NVRTC_ERROR_INTERNAL_ERROR;
  const auto source = folder + "/kernel.cu", result = folder + "/kernel.so", output = folder + "/output";
  std::ofstream(source, std::ios::binary) << program->text
                                          << "\nextern \"C\" { extern const char standin_text[]; }\n"
                                             "const char standin_text[] = R\"standin("
                                          << program->text << ")standin\";\n";
  auto words = words_of(setting("CXX", "c++"));
  for (const char* word : {"-std=c++20", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-w", "-DOWL_HOST",
                           "-include", "cstdint"})
    words.push_back(word);
  for (int i = 0; i < count; ++i)
    if (std::strncmp(options[i], "-D", 2) == 0) words.push_back(options[i]);
  for (auto& word : words_of(setting("STANDIN_CUDA_CXXFLAGS", ""))) words.push_back(std::move(word));
  for (const auto& word : {std::string("-x"), std::string("c++"), source, std::string("-o"), result})
    words.push_back(word);
  const bool compiled = run(words, output);
  program->log = read(output);
  program->code = compiled ? read(result) : "";
  fs::remove_all(folder, error);
  return program->code.empty() ? NVRTC_ERROR_COMPILATION : NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, std::size_t* bytes) {
  STANDIN_LIBRARY(nvrtcResult, nvrtcGetCUBINSize);
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  if (!bytes) return NVRTC_ERROR_INVALID_INPUT;
  *bytes = program->code.size();
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char* code) {
  STANDIN_LIBRARY(nvrtcResult, nvrtcGetCUBIN);
  if (!program || program->code.empty()) return NVRTC_ERROR_INVALID_PROGRAM;
  return copy_out(program->code, program->code.size(), code);
}

// The size includes the log's terminating zero.
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, std::size_t* bytes) {
  STANDIN_LIBRARY(nvrtcResult, nvrtcGetProgramLogSize);
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  if (!bytes) return NVRTC_ERROR_INVALID_INPUT;
  *bytes = program->log.size() + 1;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* log) {
  STANDIN_LIBRARY(nvrtcResult, nvrtcGetProgramLog);
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  return copy_out(program->log, program->log.size() + 1, log);
}
