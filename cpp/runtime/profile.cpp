#include "runtime/profile.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include "backend/cpu/tile.h"
#include "ops/elementwise.h"
#include "owl/inspect.h"
#include "runtime/device.h"
#include "runtime/task.h"

namespace owl {

namespace profile {

std::atomic<bool> on{false};

namespace {

struct Event {
  std::string name, arguments;  // arguments: the inside of a JSON object
  const char* category;
  Source source;
  int lane;
  Clock::time_point begin, end;
  std::int64_t cpu_ns;  // that the thread ran
};

struct Recording {
  std::mutex mutex;
  std::string path;                // of the file that stop_profile makes
  std::FILE* file = nullptr;       // path + ".part", opened at once: a path that cannot be written is known at the start
  Clock::time_point started;
  std::deque<Event> events;
  std::vector<std::string> lanes;  // names, by number; kept between recordings, since threads know their number
};

Recording& recording() {
  static auto* r = new Recording;  // never destroyed: workers may outlive static destruction
  return *r;
}

thread_local int lane = -1;
thread_local std::string lane_name;

int lane_of_this_thread(Recording& r) {  // with the mutex held
  if (lane < 0) {
    if (lane_name.empty())
      lane_name = getpid() == syscall(SYS_gettid) ? "script" : "thread " + std::to_string(syscall(SYS_gettid));
    lane = static_cast<int>(r.lanes.size());
    r.lanes.push_back(lane_name);
  }
  return lane;
}

std::int64_t thread_cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

std::string json(const std::string& s) {
  std::string text = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') text += '\\';
    if (static_cast<unsigned char>(c) < 32) text += ' ';
    else text += c;
  }
  return text + "\"";
}

std::string name_of(const Task& task) {
  constexpr std::size_t kNamed = 6;
  std::string text;
  std::size_t count = 0;
  const auto add = [&](const char* name) {
    if (count++ < kNamed) text += (text.empty() ? "" : " ") + std::string(name);
  };
  const auto add_program = [&](const Program* program) {
    if (program)
      for (const auto& i : program->instructions) add(elementwise_ops::All::infos[i.code].name);
  };
  add_program(task.before.get());
  if (task.op || count == 0) add(task.name);
  add_program(task.after.get());
  return count > kNamed ? text + " ..." : text;
}

void write(Recording& r) {
  const auto us = [](Clock::duration d) {
    return std::to_string(static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(d).count()) / 1000);
  };
  std::fputs("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n", r.file);
  std::fputs("{\"ph\": \"M\", \"pid\": 1, \"name\": \"process_name\", \"args\": {\"name\": \"owl\"}}", r.file);
  for (std::size_t i = 0; i < r.lanes.size(); ++i)
    std::fprintf(r.file, ",\n{\"ph\": \"M\", \"pid\": 1, \"tid\": %zu, \"name\": \"thread_name\", \"args\": {\"name\": %s}}",
                 i, json(r.lanes[i]).c_str());
  for (const auto& e : r.events) {
    const auto place = place_of(e.source);
    std::string arguments = e.arguments;
    if (!place.empty()) arguments += (arguments.empty() ? "" : ", ") + std::string("\"line\": ") + json(place);
    std::fprintf(r.file, ",\n{\"ph\": \"X\", \"pid\": 1, \"tid\": %d, \"name\": %s, \"cat\": \"%s\", \"ts\": %s, \"dur\": %s, \"tdur\": %s, \"args\": {%s}}",
                 e.lane, json(e.name).c_str(), e.category, us(e.begin - r.started).c_str(), us(e.end - e.begin).c_str(),
                 us(std::chrono::nanoseconds(e.cpu_ns)).c_str(), arguments.c_str());
  }
  std::fputs("\n]}\n", r.file);
}

std::string reason() { return std::strerror(errno); }

}  // namespace

void name_lane(std::string name) { lane_name = std::move(name); }

void Span::begin(const Task& task, std::int64_t chunk, std::int64_t chunks) {
  active_ = true;
  cpu_begin_ns_ = thread_cpu_ns();
  name_ = name_of(task);
  category_ = task.op ? "kernel" : "fused";
  source_ = task.source;
  if (!task.outputs.empty())
    arguments_ = "\"device\": " + std::to_string(task.device->id) + ", \"result\": " +
                 json(std::string(owl::name(task.outputs.back().array.dtype)) + " " + task.outputs.back().array.shape.str());
  if (chunk >= 0) arguments_ += ", \"chunk\": \"" + std::to_string(chunk + 1) + " of " + std::to_string(chunks) + "\"";
  begin_ = Clock::now();
}

void Span::begin(const char* name) {
  active_ = true;
  cpu_begin_ns_ = thread_cpu_ns();
  name_ = name;
  category_ = "engine";
  begin_ = Clock::now();
}

void Span::end() {
  const auto now = Clock::now();
  auto& r = recording();
  std::lock_guard lock(r.mutex);
  if (!r.file) return;  // it ended in between
  r.events.push_back({std::move(name_), std::move(arguments_), category_, source_, lane_of_this_thread(r),
                      std::max(begin_, r.started), now, 0});
  r.events.back().cpu_ns = thread_cpu_ns() - cpu_begin_ns_;
}

void lock_for_fork() { recording().mutex.lock(); }
void unlock_after_fork(bool child) {
  auto& r = recording();
  if (child && r.file) {  // the parent's file: the child must not write to it, nor flush what it has buffered
    on = false;
    r.events.clear();
    r.file = nullptr;
  }
  r.mutex.unlock();
}

}  // namespace profile

void start_profile(const std::string& path) {
  using namespace profile;
  auto& r = recording();
  std::lock_guard lock(r.mutex);
  if (r.file) throw Error("profile: one is being recorded already, into " + r.path);
  r.file = std::fopen((path + ".part").c_str(), "w");
  if (!r.file) throw Error("profile: cannot write " + path + ".part: " + reason());
  r.path = path;
  r.started = Clock::now();
  on = true;
}

void stop_profile() {
  using namespace profile;
  auto& r = recording();
  std::lock_guard lock(r.mutex);
  if (!r.file) throw Error("profile: none is being recorded");
  on = false;
  write(r);
  const bool bad = std::ferror(r.file) != 0;
  const bool written = std::fclose(std::exchange(r.file, nullptr)) == 0 && !bad;
  r.events.clear();
  const auto part = r.path + ".part";
  if (!written || std::rename(part.c_str(), r.path.c_str()) != 0) {
    const auto why = reason();
    std::remove(part.c_str());
    throw Error("profile: cannot write " + r.path + ": " + why);
  }
}

}  // namespace owl
