#include "backend/mpi/backend.h"

#include <cstdlib>
#include <cstring>

#include "base/failure.h"
#include "base/hooks.h"
#include "plan/task.h"
#include "plan/traits.h"

namespace owl::mpi {

namespace {

using namespace distributed;

constexpr std::size_t kShownNames = 60;  // characters

// Without the folders, which may differ between machines.
std::string short_place(const Source& source) {
  const std::string place = place_of(source);
  return place.substr(place.find_last_of('/') + 1);
}

std::string type_of(const ArrayRef& array) { return std::string(name(array.dtype)) + " " + array.shape.str(); }

const RankParams& params_of(const Task& task) { return static_cast<const RankParams&>(*task.params); }

bool is_end(const Task& task) { return task.op == &op_end; }

// The error of an operand, or of a result that got no memory, with the operation and the line where it arose.
std::string failure_of(const Task& task) {
  for (const auto& out : task.outputs) {
    if (!out.failure || out.storage->token) continue;
    const Failure& f = *out.failure;
    const auto place = short_place(f.source);
    return f.message + " (" + f.op + (place.empty() ? "" : ", " + place) + ")";
  }
  return params_of(task).text;
}

Meeting meeting_of(const Task& task) {
  Meeting m;
  const std::size_t arrays = task.inputs.size() - 1;  // without the token
  const auto place = short_place(task.source);
  m.text = task.name;
  m.identity = m.text + " " + text_of(task.params.get());
  if (arrays > 0) m.text += " of " + type_of(task.inputs[0].array);
  if (arrays > 1) m.text += " and " + std::to_string(arrays - 1) + " more";
  if (const auto& names = params_of(task).names; !names.empty()) {
    m.text += ", ";
    m.text.append(names, 0, kShownNames);
    if (names.size() > kShownNames) m.text += " ...";
  }
  for (std::size_t i = 0; i < arrays; ++i) m.identity += "; " + type_of(task.inputs[i].array);
  if (!place.empty() && !is_end(task)) m.text += " (" + place + ")";
  if (!params_of(task).anywhere) m.identity += " " + place;
  m.ends = is_end(task);
  m.failure = failure_of(task);
  if (m.ends) m.identity = m.text;
  return m;
}

std::vector<Part> parts_of(const Task& task) {
  std::vector<Part> parts;
  for (std::size_t i = 0; i + 1 < task.inputs.size(); ++i) {
    const ArrayRef& in = task.inputs[i].array;
    parts.push_back({in.as<const std::byte>(), task.outputs[i].array.as<std::byte>(), in.shape.size(), in.dtype});
  }
  return parts;
}

// A failure of this rank's own operands or results is already that of the results; the others learn of it.
void run(Group& group, const Task& task) {
  const Meeting meeting = meeting_of(task);
  const RankParams& params = params_of(task);
  try {
    if (!meeting.failure.empty()) group.meet(meeting);
    else if (task.op == &op_all_reduce) group.all_reduce(meeting, parts_of(task), params.combine);
    else if (task.op == &op_reduce_scatter) group.reduce_scatter(meeting, parts_of(task));
    else if (task.op == &op_all_gather) group.all_gather(meeting, parts_of(task));
    else if (task.op == &op_broadcast) group.broadcast(meeting, parts_of(task), params.root);
    else group.meet(meeting);
  } catch (const Error&) {
    if (meeting.failure.empty() || is_end(task)) throw;
  }
}

class LinkBackend : public Backend {
 public:
  explicit LinkBackend(Group& group) : group_(group) {}

  void* allocate(std::size_t bytes) override { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
  void free(void* data, std::size_t, std::uint64_t) override { std::free(data); }
  const KernelTraits& traits(const OpRecord&) const override { return traits_; }
  double program_cost_ns(const Program&) const override { return 0; }
  double kernel_cost_ns(double) const override { return 0; }
  double long_kernel_ns() const override { return 0; }
  void upload(Storage& to, const void* host) override { std::memcpy(to.data, host, to.bytes); }
  void download(void* host, const Storage& from, std::size_t offset, std::size_t bytes) override {
    std::memcpy(host, static_cast<const std::byte*>(from.data) + offset, bytes);
  }
  void download_strided(void*, const Storage&, std::size_t, const Shape&, const Strides&, DType) override {
    throw Error("the link between processes keeps no arrays");
  }
  void clear(void* data, std::size_t bytes) override { std::memset(data, 0, bytes); }

  void launch(Task& task, Launch& launch) override {
    launch.stage(1, [this, &task](std::int64_t) { run(group_, task); });
  }

 private:
  Group& group_;
  KernelTraits traits_;  // dense operands
};

}  // namespace

std::unique_ptr<Device> make_device(Group& group) {
  const auto name = group.library().version + ", rank " + std::to_string(group.rank()) + " of " + std::to_string(group.size());
  return std::make_unique<Device>(Device::Kind::kRanks, name, 1, false, std::make_unique<LinkBackend>(group));
}

}  // namespace owl::mpi
