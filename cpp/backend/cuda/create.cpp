// Arrays without operands: one value, ranges, random numbers.
#include <bit>
#include <cmath>

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"
#include "ops/elementwise.h"
#include "ops/create.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kEach = 4;  // elements of a thread

const CreateParams& params(const Args& args) { return static_cast<const CreateParams&>(*args.params); }

void launch(const char* name, std::string_view file, const char* which, const Slots& more, const Args& args,
            Emit& emit) {
  const auto size = args.out.shape.size();
  Slots slots;
  slots.add(size);
  slots.values.insert(slots.values.end(), more.values.begin(), more.values.end());
  emit.launch(
      {name, file, std::string("using T = ") + type_name(args.out.dtype) + ";\nusing R = T;\n#define " + which + "\n"},
      blocks_for((size + kEach - 1) / kEach), slots, false, true);
}

std::int64_t value_bits(double v, DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return v != 0;
    case DType::kInt32:
      return elementwise_ops::convert<double, std::int32_t>(v);
    case DType::kFloat32:
      return std::bit_cast<std::int32_t>(static_cast<float>(v));
    case DType::kFloat64:
      break;
  }
  return std::bit_cast<std::int64_t>(v);
}

void random(const char* which, const Args& args, Emit& emit) {
  const auto& p = params(args);
  // The largest number below the upper bound of a uniform distribution; numbers of other types are converted from
  // float32.
  const auto low = static_cast<float>(p.a), high = static_cast<float>(p.b);
  double last = high > low ? std::nextafter(high, low) : high;
  if (args.out.dtype == DType::kFloat64) last = p.b > p.a ? std::nextafter(p.b, p.a) : p.b;
  Slots slots;
  slots.add(static_cast<std::int64_t>(p.seed));
  slots.add(static_cast<std::int64_t>(p.call));
  slots.add(p.a);
  slots.add(p.b);
  slots.add(last);
  launch("owl_random", text::random, which, slots, args, emit);
}

}  // namespace

void full(const Args& args, Emit& emit) {
  Slots slots;
  slots.add(value_bits(params(args).a, args.out.dtype));
  launch("owl_full", text::create, "OWL_FULL", slots, args, emit);
}

void arange(const Args& args, Emit& emit) {
  Slots slots;
  slots.add(params(args).a);
  slots.add(params(args).b);
  launch("owl_arange", text::create, "OWL_ARANGE", slots, args, emit);
}

void rand(const Args& args, Emit& emit) { random("OWL_UNIFORM", args, emit); }
void randn(const Args& args, Emit& emit) { random("OWL_NORMAL", args, emit); }
void randb(const Args& args, Emit& emit) { random("OWL_BERNOULLI", args, emit); }

}  // namespace owl::cuda
