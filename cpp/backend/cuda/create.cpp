// Arrays without operands: one value, ranges, random numbers.
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"
#include "base/visit_dtype.h"
#include "ops/elementwise.h"
#include "ops/create.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kEach = 4;  // elements of a thread, of which the first leaves out those that are `skipped`

const CreateParams& params(const Args& args) { return static_cast<const CreateParams&>(*args.params); }

void launch(const char* name, std::string_view file, const char* which, const Slots& more, const Args& args, Emit& emit,
            std::int64_t skipped = 0) {
  const auto size = args.out.shape.size();
  Slots slots;
  slots.add(size);
  slots.values.insert(slots.values.end(), more.values.begin(), more.values.end());
  emit.launch(
      {name, file, std::string("using T = ") + type_name(args.out.dtype) + ";\nusing R = T;\n#define " + which + "\n"},
      blocks_for((skipped + size + kEach - 1) / kEach), slots, false, true);
}

std::int64_t value_bits(const Number& v, DType dtype) {
  if (dtype == DType::kInt64 && v.kind != 3) return v.integer;
  std::int64_t bits = 0;
  visit_any_dtype("full", dtype, [&]<class T>() {
    const T element = elementwise_ops::convert<double, T>(v.value);
    std::memcpy(&bits, &element, sizeof element);
  });
  return bits;
}

void random(const char* which, const Args& args, Emit& emit) {
  const auto& p = params(args);
  // The largest number below the upper bound of a uniform distribution; numbers of other types are converted from
  // float32.
  const auto low = static_cast<float>(p.a.value), high = static_cast<float>(p.b.value);
  double last = high > low ? std::nextafter(high, low) : high;
  if (args.out.dtype == DType::kFloat64) last = p.b.value > p.a.value ? std::nextafter(p.b.value, p.a.value) : p.b.value;
  Slots slots;
  slots.add(static_cast<std::int64_t>(p.seed));
  slots.add(static_cast<std::int64_t>(p.call));
  slots.add(p.a.value);
  slots.add(p.b.value);
  slots.add(last);
  slots.add(p.first);
  launch("owl_random", text::random, which, slots, args, emit, p.first % kEach);
}

}  // namespace

void full(const Args& args, Emit& emit) {
  Slots slots;
  slots.add(value_bits(params(args).a, args.out.dtype));
  launch("owl_full", text::create, "OWL_FULL", slots, args, emit);
}

void arange(const Args& args, Emit& emit) {
  Slots slots;
  const Number &start = params(args).a, &step = params(args).b;
  const bool exact = args.out.dtype == DType::kInt64 && start.kind == 2 && step.kind == 2;
  for (const Number& each : {start, step}) {
    if (exact)
      slots.add(each.integer);
    else
      slots.add(each.value);
  }
  launch("owl_arange", text::create, exact ? "OWL_ARANGE\n#define OWL_EXACT" : "OWL_ARANGE", slots, args, emit);
}

void rand(const Args& args, Emit& emit) { random("OWL_UNIFORM", args, emit); }
void randn(const Args& args, Emit& emit) { random("OWL_NORMAL", args, emit); }
void randb(const Args& args, Emit& emit) { random("OWL_BERNOULLI", args, emit); }

}  // namespace owl::cuda
