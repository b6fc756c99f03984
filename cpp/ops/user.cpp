// User-defined operations in C++ (owl/op.h).
#include "ops/user.h"

#include <algorithm>
#include <unordered_map>

#include "base/failure.h"
#include "base/fork_mutex.h"
#include "device/device.h"
#include "graph/record.h"
#include "graph/sink.h"

namespace owl {

namespace {

const UserParams& of(const Params* params) { return static_cast<const UserParams&>(*params); }

Results infer_user(std::span<Node* const>, const Params* params) {
  return Results(of(params).results);
}

constexpr std::int64_t kTruths = 1 << 20;  // bools of a chunk

double user_cost(std::span<const Shape>, const Shape&, const Params* params) { return of(params).work; }

// A backward function may read every operand and result.
constexpr Gradient user_gradient{
    .rule = [](Rule& r) { r.params<UserParams>().gradient(r); },
    .saves_by = [](const Params* params) -> Saves { return of(params).gradient ? kAllOperands | kAllResults : 0; },
    .exists = [](const Params* params) { return static_cast<bool>(of(params).gradient); }};

std::string list_of(std::span<const ArrayType> operands) {
  std::string text;
  for (auto& o : operands) text += (text.empty() ? "" : " and ") + o.shape.str();
  return text;
}

}  // namespace

// Users' code may write any byte into a bool.
void run_user(const KernelArgs& args, Launch& launch) {
  of(args.params).run(args, launch);
  const std::span<const ArrayRef> results = args.results.empty() ? std::span(&args.out, 1) : args.results;
  for (const ArrayRef& result : results) {
    if (result.dtype != DType::kBool || !result.data) continue;
    const auto n = result.shape.size();
    launch.stage((n + kTruths - 1) / kTruths, [n, out = result.as<std::uint8_t>()](std::int64_t chunk) {
      make_truths(out + chunk * kTruths, std::min(kTruths, n - chunk * kTruths));
    });
  }
}

void throw_named(const std::string& op, const Error& e) {
  const std::string message = e.what();
  if (message.starts_with(op + ":") || message.starts_with(op + " ")) throw;
  with_kind_of(e, [&]<class E>() { throw E(op + ": " + message); });
  throw;  // not reached
}

const OpRecord& user_record(const std::string& name) {
  struct Named {
    std::string name;
    OpRecord record;
  };
  static auto& mutex = *new ForkMutex;
  static auto& all = *new std::unordered_map<std::string, std::unique_ptr<Named>>;
  std::lock_guard lock(mutex);
  auto& named = all[name];
  if (!named) {
    named = std::make_unique<Named>(Named{name, {}});
    OpRecord& r = named->record;
    r.name = named->name.c_str();
    r.doc = "defined by the user";
    r.arity = -1;
    r.infer = infer_user;
    r.runs_user_code = true;
    r.cost = user_cost;
    r.gradient = &user_gradient;
  }
  return named->record;
}

std::vector<NArray> record_user(const OpRecord& op, std::span<Node* const> inputs,
                                std::shared_ptr<const UserParams> params) {
  const auto record_here = [&]() -> std::vector<NArray> {
    if (params->results.size() > 1) return record_all(op, inputs, std::move(params));
    return {record(op, inputs, std::move(params))};
  };
  Device& device = sink().current_device();
  if (device.backend->host_readable()) return record_here();
  std::vector<NArray> results;
  {
    UseDevice host(sink().device(0));
    results = record_here();
  }
  for (NArray& result : results) result = result.copy_to(device.id);
  return results;
}

namespace detail {
void refuse_element_type(DType is, DType asked) {
  throw DTypeError("the elements are " + std::string(name(is)) + ", not " + std::string(name(asked)));
}
}  // namespace detail

void Work::stage(std::int64_t chunks, std::function<void(std::int64_t)> body) {
  if (chunks < 0) throw Error("a stage of " + std::to_string(chunks) + " chunks; 0 or more are possible");
  launch_.stage(chunks, std::move(body));
}
void* Work::scratch(std::size_t bytes) { return launch_.scratch(bytes); }

struct Op::State {
  std::string name;
  Rule rule;
  Kernel kernel;
  double cost;
  const OpRecord& record;
  Backward backward;

  void record_gradients(owl::Rule& rule) const;
};

Op::Op(std::string name, Rule rule, Kernel kernel, double cost) {
  if (name.empty() || !rule || !kernel) throw Error("an Op needs a name, a rule and a kernel");
  const OpRecord& record = user_record(name);
  state_ = std::make_shared<const State>(
      State{std::move(name), std::move(rule), std::move(kernel), cost, record, nullptr});
}

const std::string& Op::name() const { return state_->name; }

namespace {

// For other exceptions only the message is kept.
template <class F> void naming_all(const std::string& op, F f) {
  try {
    naming(op, f);
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    throw Error(op + ": " + e.what());
  }
}

}  // namespace

void Op::State::record_gradients(owl::Rule& r) const {
  std::vector<NArray> operands;
  for (std::size_t i = 0; i < r.operand_count(); ++i) operands.push_back(r.array(i));
  const std::string what = name + ".back";
  std::vector<NArray> gradients;
  naming_all(what, [&] { gradients = backward(r.error_array(), r.result(), operands); });
  if (gradients.size() != operands.size())
    throw ShapeError(what + ": the backward function gave " + std::to_string(gradients.size()) + " gradients for " +
                     std::to_string(operands.size()) + " operands");
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].has_value()) {
      r.zero(i);
      continue;
    }
    if (!(gradients[i].shape() == r.shape(i)))
      throw ShapeError(what + ": the backward function gave a gradient of shape " + gradients[i].shape().str() +
                       " for operand " + std::to_string(i) + ", expected " + r.shape(i).str());
    r.to(i, gradients[i]);
  }
}

Op Op::with_backward(Backward backward) const {
  if (!backward) throw Error(state_->name + ": with_backward needs a function");
  State state = *state_;
  state.backward = std::move(backward);
  return Op(std::make_shared<const State>(std::move(state)));
}

NArray Op::operator()(std::span<const NArray> operands) const {
  std::vector<ArrayType> types;
  std::vector<Node*> nodes;
  auto params = std::make_shared<UserParams>();
  const ArrayType type = naming(state_->name, [&] {
    for (const NArray& x : operands) {
      types.push_back({x.shape(), x.dtype()});
      nodes.push_back(x.node());
    }
    return state_->rule(types);
  });
  if (type.shape.ndim() == 0) throw ShapeError(state_->name + ": the rule gave a shape without axes");
  params->results = {{type.shape, type.dtype}};
  params->work = state_->cost * static_cast<double>(type.shape.size());
  params->code = state_.get();
  params->run = [state = state_](const KernelArgs& args, Launch& launch) {
    std::vector<ConstMemory> in;
    for (const ArrayRef& a : args.in) in.push_back({a.data, a.shape, a.dtype});
    Work work(launch);
    const auto before = launch.stages.size();
    naming_all(state->name, [&] { state->kernel(in, {args.out.data, args.out.shape, args.out.dtype}, work); });
    for (auto i = before; i < launch.stages.size(); ++i)
      launch.stages[i].body = [state, body = std::move(launch.stages[i].body)](std::int64_t chunk) {
        naming_all(state->name, [&] { body(chunk); });
      };
  };
  if (state_->backward) params->gradient = [state = state_](owl::Rule& rule) { state->record_gradients(rule); };
  return record_user(state_->record, nodes, std::move(params))[0];
}

ArrayType same_as_first(std::span<const ArrayType> operands) {
  if (operands.empty()) throw ShapeError("an operation without operands needs a rule of its own");
  return operands[0];
}

ArrayType broadcast_of_all(std::span<const ArrayType> operands) {
  ArrayType result = same_as_first(operands);
  int ndim = 0;
  for (auto& o : operands) {
    ndim = std::max(ndim, o.shape.ndim());
    result.dtype = promote(result.dtype, o.dtype);
  }
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(ndim), 1);
  for (auto& o : operands) {
    for (int axis = 0; axis < o.shape.ndim(); ++axis) {
      auto& length = lengths[static_cast<std::size_t>(axis)];
      const auto n = o.shape[axis];
      if (n == 1 || n == length) continue;
      if (length != 1)
        throw ShapeError("shapes " + list_of(operands) + " do not broadcast: lengths " + std::to_string(length) +
                         " and " + std::to_string(n) + " of axis " + std::to_string(axis) + " differ");
      length = n;
    }
  }
  result.shape = Shape(lengths);
  return result;
}

}  // namespace owl
