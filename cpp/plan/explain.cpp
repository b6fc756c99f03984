// The planner's plans as tables and graphs, for users and for tests of the planner.
#include <algorithm>
#include <cstdio>
#include <map>
#include <unordered_set>

#include "base/hooks.h"
#include "device/device.h"
#include "graph/op.h"
#include "owl/inspect.h"
#include "plan/batch_alike.h"
#include "plan/explain.h"
#include "plan/planner.h"

namespace owl {

namespace {

std::int64_t bytes_of(const ArrayRef& array) { return static_cast<std::int64_t>(array.nbytes()); }

bool is_copy(const Task& task) { return !task.op && task.before && task.before->instructions.empty(); }

PlannedTask describe(const Task& task) {
  PlannedTask d;
  d.device = task.device->id;
  d.shape = shown_result(task).shape;
  d.channels_last = shown_result(task).channels_last;
  d.cost_us = task.cost_ns / 1000;
  d.outputs = static_cast<std::int64_t>(task.outputs.size());
  for (const auto& in : task.inputs) d.bytes_read += bytes_of(in.array);
  for (const auto& out : task.outputs) d.bytes_written += bytes_of(out.array);
  d.alike = static_cast<std::int64_t>(segment_count(task));
  d.kind = task.strips ? "strips" : task.op ? "kernel" : is_copy(task) ? "copy" : "fused";
  const auto add = [&d](const char* name, const Source& source) {
    d.operations.emplace_back(name);
    d.places.push_back(place_of(source));
  };
  const auto add_program = [&add](const Program* program) {
    if (program)
      for (const auto& i : program->instructions) add(elementwise_op(i.code).name, i.source);
  };
  add_program(task.before.get());
  for (const auto& segment : task.segments) add_program(segment.program.get());
  if (task.strips) {
    for (const auto& member : task.strips->members) {
      add_program(member.before.get());
      if (member.op) add(member.op->name, member.source);
      add_program(member.after.get());
    }
  } else if (d.kind != "fused") {
    add(task.name, task.source);
  }
  add_program(task.after.get());
  return d;
}

// The last task that reads a value, and with how many of its operands.
struct Readers {
  std::size_t task = 0;
  int operands = 0;
};

std::map<const Storage*, Readers> readers_of_values(const Tasks& tasks) {
  std::map<const Storage*, Readers> all;
  for (std::size_t t = 0; t < tasks.size(); ++t)
    for (const auto& in : tasks[t]->inputs) {
      auto& [last, operands] = all[in.storage.get()];
      operands = last == t ? operands + 1 : 1;
      last = t;
    }
  return all;
}

}  // namespace

Plan explain_window(const std::vector<Node*>& window, const std::vector<Node*>* values) {
  const DryPlan dry = plan_dry(window, planner::batch_alike);
  const auto count = dry.tasks.size();
  std::map<const Storage*, std::size_t> makers;
  for (std::size_t t = 0; t < count; ++t)
    for (const auto& out : dry.tasks[t]->outputs) makers[out.storage.get()] = t;
  const auto producer = [&](const Storage* s) {  // `count`: no task of this plan
    const auto found = makers.find(s);
    return found == makers.end() ? count : found->second;
  };

  std::unordered_set<const Storage*> held;  // values with handles, which must not be overwritten
  for (const auto& [value, storage] : dry.storages)
    if (value.first->handles() > 0) held.insert(storage.get());
  const auto readers = readers_of_values(dry.tasks);

  std::vector<bool> needed(count, values == nullptr);
  if (values != nullptr)
    for (Node* node : *values)
      if (const auto found = dry.storages.find(DryPlan::value_of(*node)); found != dry.storages.end())
        needed[producer(found->second.get())] = true;
  for (std::size_t t = count; t-- > 0;) {
    if (!needed[t]) continue;
    for (const auto& in : dry.tasks[t]->inputs)
      if (const auto p = producer(in.storage.get()); p < count) needed[p] = true;
  }

  Plan plan;
  std::vector<int> renumbered(count, -1);
  for (std::size_t t = 0; t < count; ++t) {
    if (!needed[t]) continue;
    Task& task = *dry.tasks[t];
    auto d = describe(task);
    // Whether the task would write a result where the operand was, once no other task reads it.
    const auto is_taken_over = [&](const TaskOperand& in, std::span<const TaskOperand> results) {
      const auto [last, operands] = readers.at(in.storage.get());
      return last == t && operands == 1 && !held.contains(in.storage.get()) &&
             std::ranges::any_of(results, [&](const auto& out) { return may_take_over(task, in, out); });
    };
    for (std::size_t s = 0; s < segment_count(task); ++s) {
      const auto [program, operands, results] = segment(task, s);
      for (const auto& in : operands) {
        const auto p = producer(in.storage.get());
        if (p == count) continue;
        const int maker = renumbered[p];
        if (std::ranges::find(d.after, maker) == d.after.end()) d.after.push_back(maker);
        if (d.reuses < 0 && is_taken_over(in, results)) d.reuses = maker;
      }
    }
    renumbered[t] = static_cast<int>(plan.tasks.size());
    plan.tasks.push_back(std::move(d));
  }
  return plan;
}

namespace {

std::string amount(double value, const char* const* units, int count, double step) {
  int unit = 0;
  while (value >= step && unit + 1 < count) value /= step, ++unit;
  char text[32];
  std::snprintf(text, sizeof text, value < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
  return text;
}

std::string bytes_text(std::int64_t n) {
  static constexpr const char* units[] = {"B", "KB", "MB", "GB", "TB"};
  return amount(static_cast<double>(n), units, 5, 1000);
}

std::string time_text(double us) {
  static constexpr const char* units[] = {"us", "ms", "s"};
  return amount(us, units, 3, 1000);
}

std::string base_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

// "matmul" or "mult, add x3, relu", then the lines that recorded them; "100 alike: mult, add".
std::string operations_text(const PlannedTask& task) {
  std::string text = task.alike > 1 ? std::to_string(task.alike) + " alike: " : "";
  const auto count = task.operations.size() / static_cast<std::size_t>(task.alike);  // of one of them
  for (std::size_t i = 0; i < count;) {
    std::size_t n = 1;
    while (i + n < count && task.operations[i + n] == task.operations[i]) ++n;
    text += (i ? ", " : "") + task.operations[i] + (n > 1 ? " x" + std::to_string(n) : "");
    i += n;
  }
  std::vector<std::string> places;
  for (const auto& p : task.places)
    if (!p.empty() && std::find(places.begin(), places.end(), base_name(p)) == places.end())
      places.push_back(base_name(p));
  for (std::size_t i = 0; i < places.size(); ++i) text += (i ? ", " : "  (") + places[i];
  return places.empty() ? text : text + ")";
}

std::string quoted(const std::string& s) {
  std::string text = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') text += '\\';
    if (c == '\n') text += "\\n";
    else text += c;
  }
  return text + "\"";
}

// The nodes that the values depend on, operands before readers where possible; a view depends on its base.
std::vector<Node*> nodes_behind(const std::vector<Node*>& values) {
  std::vector<Node*> order, stack(values.begin(), values.end());
  std::unordered_set<Node*> seen;
  while (!stack.empty()) {
    Node* node = stack.back();
    stack.pop_back();
    if (!seen.insert(node).second) continue;
    order.push_back(node);
    if (node->base) stack.push_back(node->base);
    for (Node* in : node->inputs())
      if (in) stack.push_back(in);
  }
  return order;
}

// What is written on a node: its operation, type and shape; of one that is not planned yet also its parameters, and where
// it was recorded.
std::string label_of(const Node& node) {
  const char* what = node.base ? "view" : node.op ? node.op->name : "data";
  const bool pending = !node.base && !node.planned();
  const auto parameters = pending ? text_of(node.params.get()) : std::string(), place = place_of(node.source);
  return std::string(what) + "\n" + std::string(name(node.dtype)) + " " + node.shape.str() +
         (parameters.empty() ? "" : "\n" + parameters) +
         (pending && !place.empty() ? "\n" + base_name(place) : "");
}

}  // namespace

std::string draw_window(const std::vector<Node*>& window, const std::vector<Node*>& values) {
  const DryPlan dry = plan_dry(window, false);
  const std::vector<Node*> order = nodes_behind(values);
  std::map<const Node*, std::string> id;
  for (std::size_t i = 0; i < order.size(); ++i) id[order[i]] = "n" + std::to_string(i);

  std::map<std::size_t, std::vector<Node*>> of_task;
  std::string lines;
  const auto line = [&](Node* node) {
    const bool pending = !node->base && !node->planned();
    return id[node] + " [label=" + quoted(label_of(*node)) + (pending ? "" : ", style=dashed") +
           (node->handles() > 0 ? ", penwidth=2" : "") + "];\n";
  };
  for (Node* node : order) {
    const auto task = dry.task_of.find(node);
    if (task == dry.task_of.end()) lines += "  " + line(node);
    else of_task[task->second].push_back(node);
  }
  for (const auto& [task, nodes] : of_task) {
    if (nodes.size() == 1) {
      lines += "  " + line(nodes[0]);
      continue;
    }
    lines += "  subgraph cluster_" + std::to_string(task) + " {\n    label=\"one task\";\n";
    for (Node* node : nodes) lines += "    " + line(node);
    lines += "  }\n";
  }
  for (Node* node : order) {
    if (node->base) lines += "  " + id[node->base] + " -> " + id[node] + " [style=dashed];\n";
    for (Node* in : node->inputs())
      if (in) lines += "  " + id[in] + " -> " + id[node] + ";\n";
  }
  return "digraph owl {\n  node [shape=box, fontname=\"sans-serif\"];\n" + lines + "}\n";
}

std::string Plan::str() const {
  if (tasks.empty()) return "nothing to run: every value is computed, or being computed\n";
  std::vector<std::vector<std::string>> rows{
      {"task", "device", "kind", "result", "reads", "writes", "cost", "after", "in place of", "operations"}};
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    const auto& task = tasks[t];
    std::string after;
    for (const int a : task.after) after += (after.empty() ? "" : " ") + std::to_string(a);
    rows.push_back({std::to_string(t), std::to_string(task.device), task.kind,
                    task.shape.str() + (task.outputs > 1 ? " x" + std::to_string(task.outputs) : "") +
                        (task.channels_last ? " channels last" : ""),
                    bytes_text(task.bytes_read), bytes_text(task.bytes_written), time_text(task.cost_us), after,
                    task.reuses < 0 ? "" : std::to_string(task.reuses), operations_text(task)});
  }
  std::vector<std::size_t> widths(rows[0].size());
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t c = 0; c + 1 < row.size(); ++c) text += row[c] + std::string(widths[c] - row[c].size() + 2, ' ');
    text += row.back() + "\n";
  }
  return text;
}

}  // namespace owl
