#include "ops/distributed.h"

#include <algorithm>

#include "device/device.h"
#include "graph/gradient.h"
#include "graph/sink.h"

namespace owl::distributed {

namespace {

Job* joined = nullptr;  // as long as the process

const RankParams& of(const Params* params) { return static_cast<const RankParams&>(*params); }

Results same_as_operands(std::span<Node* const> in, const Params*) {
  std::vector<ResultType> results;
  for (const Node* x : in) results.push_back({x->shape, x->dtype, x->device});
  return Results(results);
}

Results of_this_rank(std::span<Node* const> in, const Params* params) {
  std::vector<ResultType> results;
  for (const Node* x : in) {
    auto lengths = lengths_of(x->shape);
    lengths.back() /= of(params).ranks;
    results.push_back({Shape(lengths), x->dtype, x->device});
  }
  return Results(results);
}

Results of_all_ranks(std::span<Node* const> in, const Params* params) {
  std::vector<ResultType> results;
  for (const Node* x : in) {
    auto lengths = lengths_of(x->shape);
    lengths.back() *= of(params).ranks;
    results.push_back({Shape(lengths), x->dtype, x->device});
  }
  return Results(results);
}

Results no_value(std::span<Node* const>, const Params*) { return Results(Shape{1}, DType::kBool); }

// The gradients are those of the job whose loss is the sum of the ranks' losses: from what flows into the results on all
// ranks.
std::vector<NArray> errors_of(Rule& r) {
  std::vector<NArray> errors;
  for (std::size_t i = 0; i < r.operand_count(); ++i) errors.push_back(r.error_array(i));
  return errors;
}
std::vector<NArray> errors_of_all_ranks(Rule& r) { return all_reduce(errors_of(r), RankParams()); }

// Every rank's operand is in each rank's result.
constexpr Gradient all_reduce_gradient{
    .rule =
        [](Rule& r) {
          const auto sums = errors_of_all_ranks(r);
          for (std::size_t i = 0; i < sums.size(); ++i) r.to(i, sums[i]);
        },
    .exists = [](const Params* params) { return of(params).combine == Combine::kSum; }};

// Each rank has a part of the sum, to which every rank's operand has contributed the same part of itself.
constexpr Gradient reduce_scatter_gradient{.rule = [](Rule& r) {
  const auto wholes = all_gather(errors_of(r), RankParams());
  for (std::size_t i = 0; i < wholes.size(); ++i) r.to(i, wholes[i]);
}};

constexpr Gradient all_gather_gradient{.rule = [](Rule& r) {
  const auto parts = reduce_scatter(errors_of(r), RankParams());
  for (std::size_t i = 0; i < parts.size(); ++i) r.to(i, parts[i]);
}};

constexpr Gradient broadcast_gradient{.rule = [](Rule& r) {
  const auto sums = errors_of_all_ranks(r);
  const bool is_root = joined->rank == r.params<RankParams>().root;
  for (std::size_t i = 0; i < sums.size(); ++i) r.to(i, is_root ? Term(sums[i]) : Term());
}};

// Communication is the host's: a GPU's array is copied there.
std::vector<NArray> on_host(const std::vector<NArray>& arrays) {
  std::vector<NArray> operands;
  for (const NArray& x : arrays) {
    Device& device = *x.node()->device;
    UseDevice there(device);
    const NArray whole = dense(x);
    operands.push_back(device.backend->host_readable() ? whole : whole.copy_to(0));
  }
  return operands;
}

std::vector<NArray> record_on(Job& job, const OpRecord& op, const std::vector<NArray>& operands, RankParams params) {
  std::vector<Node*> nodes;
  for (const NArray& x : operands) nodes.push_back(x.node());
  params.ranks = job.size;
  UseDevice link(job.device);
  return record_effect(op, nodes, std::make_shared<const RankParams>(std::move(params)), job.token);
}

std::vector<NArray> record_arrays(const OpRecord& op, const std::vector<NArray>& arrays, RankParams params) {
  if (!joined) return arrays;
  auto results = record_on(*joined, op, on_host(arrays), std::move(params));
  for (std::size_t i = 0; i < results.size(); ++i)
    if (results[i].device() != arrays[i].device()) results[i] = results[i].copy_to(arrays[i].device());
  return results;
}

void require_sums(const OpRecord& op, const std::vector<NArray>& arrays) {
  for (const NArray& x : arrays)
    if (x.dtype() == DType::kBool)
      throw DTypeError(std::string(op.name) + ": sums of bool arrays are not defined; use astype first");
}

OpRecord collective(const char* name, const char* doc, int arity, InferFn infer, const Gradient* gradient) {
  return {.name = name, .doc = doc, .arity = arity, .infer = infer, .joins_devices = true, .effect = true,
          .runs_on_failure = true, .gradient = gradient};
}

}  // namespace

const OpRecord op_all_reduce = collective("distributed.all_reduce", "the sum over all ranks, or the largest or smallest",
                                          -1, same_as_operands, &all_reduce_gradient);
const OpRecord op_reduce_scatter = collective("distributed.reduce_scatter", "the sum over all ranks, of which each has a part",
                                              -1, of_this_rank, &reduce_scatter_gradient);
const OpRecord op_all_gather = collective("distributed.all_gather", "the arrays of all ranks, joined along the last axis",
                                          -1, of_all_ranks, &all_gather_gradient);
const OpRecord op_broadcast =
    collective("distributed.broadcast", "one rank's arrays, on every rank", -1, same_as_operands, &broadcast_gradient);
const OpRecord op_barrier =
    collective("distributed.barrier", "waits until every rank has come to it", 0, no_value, &no_gradient);
const OpRecord op_end = collective("the end of the script", "the last that a rank does", 0, no_value, &no_gradient);

void join(Device& device, int rank, int size) { joined = new Job{device, rank, size}; }
Job* job() { return joined; }

std::vector<NArray> all_reduce(const std::vector<NArray>& arrays, RankParams how) {
  if (how.combine == Combine::kSum) require_sums(op_all_reduce, arrays);
  return record_arrays(op_all_reduce, arrays, std::move(how));
}

std::vector<NArray> reduce_scatter(const std::vector<NArray>& arrays, RankParams how) {
  require_sums(op_reduce_scatter, arrays);
  const int ranks = joined ? joined->size : 1;
  for (const NArray& x : arrays)
    if (const auto last = x.shape()[x.shape().ndim() - 1]; last % ranks != 0)
      throw ShapeError("distributed.reduce_scatter: the last axis of shape " + x.shape().str() + " has " + std::to_string(last) +
                       " elements, which " + std::to_string(ranks) + " ranks cannot share; its length must be a multiple of " +
                       std::to_string(ranks));
  return record_arrays(op_reduce_scatter, arrays, std::move(how));
}

std::vector<NArray> all_gather(const std::vector<NArray>& arrays, RankParams how) {
  return record_arrays(op_all_gather, arrays, std::move(how));
}

std::vector<NArray> broadcast(const std::vector<NArray>& arrays, RankParams how) {
  const int size = joined ? joined->size : 1;
  if (how.root < 0 || how.root >= size)
    throw ValueError("distributed.broadcast: root " + std::to_string(how.root) + "; the ranks are 0 to " +
                     std::to_string(size - 1));
  how.anywhere = true;  // the root often has the array from another line than the other ranks
  return record_arrays(op_broadcast, arrays, std::move(how));
}

NArray barrier() { return record_on(*joined, op_barrier, {}, {})[0]; }

NArray end(const std::string& failure) {
  RankParams params;
  params.text = failure;
  params.anywhere = true;
  return record_on(*joined, op_end, {}, std::move(params))[0];
}

}  // namespace owl::distributed
