// Settings from the environment, read once. An unknown OWL_ name is reported with the nearest known one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/module_api.h"

namespace owl {

// Instruction sets of x86-64 processors, each including those before it.
enum class Isa { kBaseline, kAvx2, kAvx512 };

struct Settings {
  bool eager = false;             // OWL_EAGER: every operation runs alone, before the next is recorded
  std::int64_t threads = 0;       // OWL_NUM_THREADS: most threads of a device; 0: as the machine allows
  std::int64_t window = 64;       // OWL_WINDOW: operations that the window keeps while recording goes on
  std::int64_t idle_us = 100;     // OWL_IDLE_US: time without a new operation until workers plan the window; -1: never
  std::int64_t memory_limit = 0;  // OWL_MEMORY_LIMIT: bytes of each device; 0: no limit
  Isa isa = Isa::kAvx512;         // OWL_ISA: the newest instruction set to use
  std::int64_t simulated_gpus = 0;  // OWL_SIMULATED_GPUS: GPUs simulated on the CPU
  bool log_plan = false, log_run = false, log_memory = false;  // OWL_LOG=plan,run,memory
  std::string dump;                            // OWL_DUMP: a folder for planned batches
  std::string profile;                         // OWL_PROFILE: a file for a trace of the whole run
  std::int64_t fault_alloc = 0, fault_op = 0;  // OWL_FAULT=alloc:N,op:N: the N-th fails (for tests)
};
OWL_MODULE_API const Settings& settings();

// The number of threads that this process may use: the smallest of the affinity mask, the cgroup's quota and
// OWL_NUM_THREADS. Processes of an MPI job that are bound to no cores share those of their machine.
int available_threads();

// The CPU quota of the process's cgroup (version 1 or 2) and those around it, in CPUs, rounded up; a large number if
// there is none. `root` is "/" except in tests.
int cgroup_cpus(const std::filesystem::path& root);

// Prints "owl: " and one line to stderr.
OWL_MODULE_API void log_line(const std::string& line);

}  // namespace owl
