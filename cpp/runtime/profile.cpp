#include "runtime/profile.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/replace_file.h"
#include "device/device.h"
#include "graph/op.h"
#include "owl/inspect.h"
#include "plan/task.h"

namespace owl {

namespace profile {

std::atomic<bool> on{false};

namespace {

struct Event {
  std::string name, arguments;  // arguments: the members of a JSON object
  const char* category;
  Source source;
  int lane;
  Clock::time_point begin, end;
  std::int64_t cpu_ns;  // processor time of the thread
};

struct Recording {
  RankedMutex<LockRank::kProfile> mutex;
  std::string path;                // the file that stop_profile replaces
  std::unique_ptr<FileReplacement> file;  // opened at the start, so that an unwritable path fails there
  Clock::time_point started;
  std::deque<Event> events;
  std::vector<std::string> lanes;  // names, by number; kept between recordings, because threads keep their number
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

// The length of the UTF-8 character at `at`; 0: not a character.
std::size_t utf8_length(const std::string& s, std::size_t at) {
  const auto byte = [&](std::size_t i) { return at + i < s.size() ? static_cast<unsigned char>(s[at + i]) : 0u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xED && byte(1) >= 0xA0, too_large = lead == 0xF4 && byte(1) >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

// A byte of a file name that is not UTF-8 is written as Python does: as \udc80 to \udcff.
std::string json(const std::string& s) {
  std::string text = "\"";
  for (std::size_t at = 0; at < s.size();) {
    const char c = s[at];
    const auto length = utf8_length(s, at);
    if (length == 0) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\udc%02x", static_cast<unsigned char>(c));
      text += escaped;
    } else if (static_cast<unsigned char>(c) < 32) {
      text += ' ';
    } else {
      if (c == '"' || c == '\\') text += '\\';
      text.append(s, at, length);
    }
    at += std::max<std::size_t>(length, 1);
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
      for (const auto& i : program->instructions) add(elementwise_op(i.code).name);
  };
  add_program(task.segments.empty() ? task.before.get() : task.segments.front().program.get());
  if (task.strips)
    for (const auto& member : task.strips->members) {
      add_program(member.before.get());
      if (member.op) add(member.op->name);
      add_program(member.after.get());
    }
  if (task.op || count == 0) add(task.name);
  add_program(task.after.get());
  if (count > kNamed) text += " ...";
  return task.segments.empty() ? text : std::to_string(task.segments.size()) + " x " + text;
}

void write(const Recording& r, std::FILE* file) {
  const auto us = [](Clock::duration d) {
    return std::to_string(static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(d).count()) / 1000);
  };
  std::fputs("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n", file);
  std::fputs("{\"ph\": \"M\", \"pid\": 1, \"name\": \"process_name\", \"args\": {\"name\": \"owl\"}}", file);
  for (std::size_t i = 0; i < r.lanes.size(); ++i)
    std::fprintf(file, ",\n{\"ph\": \"M\", \"pid\": 1, \"tid\": %zu, \"name\": \"thread_name\", \"args\": {\"name\": %s}}",
                 i, json(r.lanes[i]).c_str());
  for (const auto& e : r.events) {
    const auto place = place_of(e.source);
    std::string arguments = e.arguments;
    if (!place.empty()) arguments += (arguments.empty() ? "" : ", ") + std::string("\"line\": ") + json(place);
    std::fprintf(file, ",\n{\"ph\": \"X\", \"pid\": 1, \"tid\": %d, \"name\": %s, \"cat\": \"%s\", \"ts\": %s, \"dur\": %s, \"tdur\": %s, \"args\": {%s}}",
                 e.lane, json(e.name).c_str(), e.category, us(e.begin - r.started).c_str(), us(e.end - e.begin).c_str(),
                 us(std::chrono::nanoseconds(e.cpu_ns)).c_str(), arguments.c_str());
  }
  std::fputs("\n]}\n", file);
}

}  // namespace

void name_lane(std::string name) { lane_name = std::move(name); }

void Span::begin(const Task& task, std::int64_t chunk, std::int64_t chunks) {
  active_ = true;
  cpu_begin_ns_ = thread_cpu_ns();
  name_ = name_of(task);
  category_ = task.strips ? "strips" : task.op ? "kernel" : "fused";
  source_ = task.source;
  arguments_ = "\"device\": " + std::to_string(task.device->id);
  if (!task.outputs.empty())
    arguments_ += ", \"result\": " + json(std::string(owl::name(shown_result(task).dtype)) + " " + shown_result(task).shape.str());
  if (task.params) arguments_ += ", \"parameters\": " + json(text_of(task.params.get()));
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
  if (!r.file) return;  // it has ended meanwhile
  r.events.push_back({std::move(name_), std::move(arguments_), category_, source_, lane_of_this_thread(r),
                      std::max(begin_, r.started), now, 0});
  r.events.back().cpu_ns = thread_cpu_ns() - cpu_begin_ns_;
}

void lock_for_fork() { recording().mutex.lock(); }
void unlock_after_fork(bool child) {
  auto& r = recording();
  if (child && r.file) {  // the parent's file: the child must neither write to it nor flush its buffer
    on = false;
    r.events.clear();
    static_cast<void>(r.file.release());
  }
  r.mutex.unlock();
}

}  // namespace profile

void start_profile(const std::string& path) {
  using namespace profile;
  auto& r = recording();
  std::lock_guard lock(r.mutex);
  if (r.file) throw Error("profile: one is being recorded already, into " + r.path);
  r.file = std::make_unique<FileReplacement>(path, "profile: ");
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
  const auto file = std::move(r.file);
  write(r, file->file());
  r.events.clear();
  file->commit();
}

}  // namespace owl
