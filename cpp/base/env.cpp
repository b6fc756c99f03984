#include "base/env.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "owl/error.h"

extern char** environ;

namespace owl {

namespace {

// Includes the names that other parts of owl read, so that none of them is reported as unknown.
constexpr std::string_view kNames[] = {
    "OWL_EAGER", "OWL_NUM_THREADS", "OWL_WINDOW", "OWL_IDLE_US", "OWL_MEMORY_LIMIT", "OWL_SIMULATED_GPUS", "OWL_LOG",
    "OWL_FAULT", "OWL_DATA", "OWL_SOAK", "OWL_CUDA", "OWL_ONEDNN_ROOT", "OWL_DUMP", "OWL_PROFILE", "OWL_MIRRORS",
    "OWL_ISA", "OWL_CUDA_ROOT", "OWL_WHEELS", "OWL_TEST_DEVICE", "OWL_MPI", "OWL_TEST_MPI"};

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int up = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row[b.size()];
}

void warn_unknown_names() {
  for (char** e = environ; *e; ++e) {
    const std::string_view entry = *e;
    if (!entry.starts_with("OWL_")) continue;
    const auto name = entry.substr(0, entry.find('='));
    if (std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames)) continue;
    const auto nearest = *std::min_element(std::begin(kNames), std::end(kNames), [&](auto a, auto b) {
      return edit_distance(name, a) < edit_distance(name, b);
    });
    log_line("unknown environment variable " + std::string(name) + "; did you mean " + std::string(nearest) + "?");
  }
}

// The number that `text` consists of; none if it is not a number or exceeds 64 bits.
std::optional<std::int64_t> whole_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

std::int64_t integer(const char* name, std::int64_t fallback, std::int64_t least) {
  const char* setting = std::getenv(name);
  if (!setting || !*setting) return fallback;
  const std::string text = setting;
  const auto value = whole_number(text);
  if (value && *value >= least) return *value;
  const bool too_large = !value && text.find_first_not_of("+0123456789") == std::string::npos;
  throw Error(std::string(name) + "=" + text + ": expected a whole number of at " +
              (too_large ? "most " + std::to_string(INT64_MAX) : "least " + std::to_string(least)));
}

Settings read() {
  warn_unknown_names();
  Settings s;
  s.eager = integer("OWL_EAGER", 0, 0) != 0;
  s.threads = integer("OWL_NUM_THREADS", 0, 0);
  s.window = integer("OWL_WINDOW", s.window, 1);
  s.idle_us = integer("OWL_IDLE_US", s.idle_us, -1);
  s.memory_limit = integer("OWL_MEMORY_LIMIT", 0, 0);
  s.simulated_gpus = integer("OWL_SIMULATED_GPUS", 0, 0);
  if (const char* isa = std::getenv("OWL_ISA"); isa && *isa) {
    const std::string_view name = isa;
    if (name == "baseline") s.isa = Isa::kBaseline;
    else if (name == "avx2") s.isa = Isa::kAvx2;
    else if (name != "avx512") throw Error("OWL_ISA=" + std::string(isa) + ": expected baseline, avx2 or avx512");
  }
  if (const char* log = std::getenv("OWL_LOG")) {
    std::stringstream list(log);
    for (std::string topic; std::getline(list, topic, ',');) {
      if (topic == "plan") s.log_plan = true;
      else if (topic == "run") s.log_run = true;
      else if (topic == "memory") s.log_memory = true;
      else if (!topic.empty()) throw Error("OWL_LOG: unknown topic '" + topic + "'; known: plan, run, memory");
    }
  }
  if (const char* folder = std::getenv("OWL_DUMP")) s.dump = folder;
  if (const char* path = std::getenv("OWL_PROFILE")) s.profile = path;
  if (const char* fault = std::getenv("OWL_FAULT")) {
    std::stringstream list(fault);
    for (std::string item; std::getline(list, item, ',');) {
      const auto colon = item.find(':');
      const auto kind = item.substr(0, colon);
      const auto n = colon == std::string::npos ? 0 : whole_number(item.substr(colon + 1)).value_or(0);
      if ((kind != "alloc" && kind != "op") || n < 1)
        throw Error("OWL_FAULT: '" + item + "' is not alloc:N or op:N with N from 1");
      (kind == "alloc" ? s.fault_alloc : s.fault_op) = n;
    }
  }
  return s;
}

constexpr int kNoQuota = 1 << 20;

int rounded_up(double quota, double period) {
  if (!(quota > 0 && period > 0)) return kNoQuota;
  return static_cast<int>(std::clamp(std::ceil(quota / period), 1.0, double{kNoQuota}));
}

// The smallest quota of the group and the groups around it. `read` returns one folder's quota.
template <class Read> int least_on_the_way_up(std::filesystem::path mount, std::filesystem::path group, Read read) {
  int least = read(mount);
  for (group = group.relative_path(); group.has_relative_path(); group = group.parent_path())
    least = std::min(least, read(mount / group));
  return least;
}

int read_v2(const std::filesystem::path& folder) {
  std::ifstream file(folder / "cpu.max");
  std::string quota;
  double period = 0;
  file >> quota >> period;  // "max 100000" or "150000 100000"
  return file ? rounded_up(std::strtod(quota.c_str(), nullptr), period) : kNoQuota;
}

int read_v1(const std::filesystem::path& folder) {
  double quota = 0, period = 0;
  std::ifstream(folder / "cpu.cfs_quota_us") >> quota;  // -1: none
  std::ifstream(folder / "cpu.cfs_period_us") >> period;
  return rounded_up(quota, period);
}

}  // namespace

const Settings& settings() {
  static const Settings s = read();
  return s;
}

int cgroup_cpus(const std::filesystem::path& root) {
  const auto mount = root / "sys/fs/cgroup";
  int cpus = std::min(read_v2(mount), read_v1(mount / "cpu"));  // in a container these are the process's own
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const auto controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::filesystem::path group = line.substr(second + 1);
    if (controllers == ",,") cpus = std::min(cpus, least_on_the_way_up(mount, group, read_v2));
    if (controllers.find(",cpu,") != std::string::npos)
      cpus = std::min(cpus, least_on_the_way_up(mount / "cpu", group, read_v1));
  }
  return cpus;
}

namespace {

// How many processes of an MPI job the launcher started on this machine: Open MPI's name, and that of MPICH's family.
int ranks_here() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"})
    if (const char* text = std::getenv(name)) return std::max(1, std::atoi(text));
  return 1;
}

}  // namespace

int available_threads() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cpus = CPU_COUNT(&mask);
  int n = std::max(1, std::min(cpus, cgroup_cpus("/")));
  // They share the cores, unless the launcher has bound each to some of them.
  if (cpus == static_cast<int>(std::thread::hardware_concurrency())) n = std::max(1, n / ranks_here());
  if (settings().threads > 0) n = static_cast<int>(std::min<std::int64_t>(n, settings().threads));
  return n;
}

void log_line(const std::string& line) {
  const auto text = "owl: " + line + "\n";
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace owl
