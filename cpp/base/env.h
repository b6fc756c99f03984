// Settings from the environment, read once. An unknown OWL_ name is reported with the nearest known one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/module_api.h"

namespace owl {

// Of x86-64 processors, each including those before it.
enum class Isa { kBaseline, kAvx2, kAvx512 };

struct Settings {
  bool eager = false;             // OWL_EAGER: every operation runs alone, before the next is recorded
  std::int64_t threads = 0;       // OWL_NUM_THREADS: at most so many threads a device; 0: as the machine allows
  std::int64_t window = 64;       // OWL_WINDOW: operations kept back while recording goes on
  std::int64_t idle_us = 100;     // OWL_IDLE_US: quiet after which the window is taken; -1: never
  std::int64_t memory_limit = 0;  // OWL_MEMORY_LIMIT: bytes a device; 0: none
  Isa isa = Isa::kAvx512;         // OWL_ISA: no newer instructions than these
  std::int64_t simulated_gpus = 0;  // OWL_SIMULATED_GPUS: CPU-backed stand-ins for GPUs
  bool log_plan = false, log_run = false, log_memory = false;  // OWL_LOG=plan,run,memory
  std::string dump;                            // OWL_DUMP: a folder for what is planned
  std::string profile;                         // OWL_PROFILE: a file for a trace of the whole run
  std::int64_t fault_alloc = 0, fault_op = 0;  // OWL_FAULT=alloc:N,op:N: the N-th fails (for tests)
};
OWL_MODULE_API const Settings& settings();

// Threads this process may use: the smallest of the affinity mask, the cgroup's quota and OWL_NUM_THREADS.
int available_threads();

// CPUs' worth of time that the process's cgroup (version 1 or 2) and those around it grant, rounded up; a large number
// where there is no quota. `root` is "/", but in tests.
int cgroup_cpus(const std::filesystem::path& root);

// One line on stderr, "owl: " before it.
OWL_MODULE_API void log_line(const std::string& line);

}  // namespace owl
