// Shared by user-defined operations: one record for each name, everything else in the parameters.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/module_api.h"
#include "device/launch.h"
#include "graph/gradient.h"
#include "graph/op.h"
#include "owl/narray.h"
#include "owl/op.h"

namespace owl {

struct UserParams : Params {
  std::vector<ResultType> results;
  double work = 0;  // in additions
  const void* code = nullptr;  // which function `run` calls: two with the same code do the same
  std::function<void(const KernelArgs& args, Launch& launch)> run;
  std::function<void(Rule& rule)> gradient;  // empty: it has none, and to ask for it is an error

  void visit(const ParamVisitor& field) const override {
    for (const auto& [shape, dtype, device] : results) {
      field("shape", lengths_of(shape));
      field("dtype", dtype);
    }
    field("work", work);
    field("code", code);
  }
};

// Throws e's kind of error again, with the operation in front of its message where that does not begin with it.
[[noreturn]] OWL_MODULE_API void throw_named(const std::string& op, const Error& e);

// Runs f; an error of owl's that it throws names the operation.
template <class F> decltype(auto) naming(const std::string& op, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw_named(op, e);
  }
}

// The kernel of them all: runs the user's code.
void run_user(const KernelArgs& args, Launch& launch);

// Lives as long as the process, because failures and memory statistics name operations.
OWL_MODULE_API const OpRecord& user_record(const std::string& name);

// Records it, with one array for each of the parameters' results. Users' code works on the host's memory: on a GPU the
// operation is computed by device 0, and its result copied.
OWL_MODULE_API std::vector<NArray> record_user(const OpRecord& op, std::span<Node* const> inputs,
                                               std::shared_ptr<const UserParams> params);

}  // namespace owl
