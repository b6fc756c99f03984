// Arrays without operands: constants, ranges, random numbers, host data.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "base/fork_mutex.h"
#include "base/visit_dtype.h"
#include "graph/gradient.h"
#include "graph/record.h"
#include "ops/create.h"
#include "ops/records.h"
#include "owl/elewise.h"

namespace owl {

namespace {

class Generator {
 public:
  RandomState state() {
    const std::lock_guard lock(mutex_);
    return seeded_state();
  }
  void set_state(const RandomState& state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
    seeded_ = true;
  }
  RandomState next() {
    const std::lock_guard lock(mutex_);
    const RandomState now = seeded_state();
    ++state_.drawn;
    return now;
  }

 private:
  const RandomState& seeded_state() {
    if (!seeded_) {  // without owl::seed: other numbers in each process
      std::random_device entropy;
      state_.seed = static_cast<std::uint64_t>(entropy()) << 32 | entropy();
      seeded_ = true;
    }
    return state_;
  }

  ForkMutex mutex_;
  RandomState state_;
  bool seeded_ = false;
};
Generator generator;

Results infer_result(std::span<Node* const>, const Params* params) {
  const auto* p = static_cast<const CreateParams*>(params);
  return {p->shape, p->dtype};
}

constexpr OpRecord source(const char* name, const char* doc) {
  return {.name = name, .doc = doc, .arity = 0, .infer = infer_result, .gradient = &no_gradient};
}

}  // namespace

const OpRecord op_full = source("full", "one value everywhere");
const OpRecord op_arange = source("arange", "start, start + step ...");
const OpRecord op_rand = source("rand", "uniform in [low, high)");
const OpRecord op_randn = source("randn", "normal with mean mu and standard deviation sigma");
const OpRecord op_randb = source("randb", "1 with the given probability, else 0");

Shape detail::shape_of_numbers(const char* function, std::initializer_list<std::int64_t> lengths) {
  std::string given;
  bool fits = true, lengths_all = true;
  for (const std::int64_t& n : lengths) {
    given += (given.empty() ? "" : ", ") + std::to_string(n);
    fits = fits && n > 0;
    lengths_all = lengths_all && n >= 0;
  }
  if (!fits) {
    const auto first = *lengths.begin() >= 0 ? std::to_string(*lengths.begin()) : "3, 4";
    const auto whole = lengths_all ? given : "3, 4", call = std::string(function) + "(";
    throw ValueError(call + given + "): integers alone are a shape, and here one is not positive; write " + call + "{" +
                     whole + "}) for the shape, or " + call + "{" + first + "}, 0.0, 1.0) for " +
                     (function[4] == 'n' ? "mu and sigma" : "low and high"));
  }
  return Shape(lengths);
}

namespace {

std::string text(double v) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", v);
  return buffer;
}

void require_fit(const char* op, const Number& value, DType dtype) {
  if (value.fits(dtype)) return;
  const bool exact = value.kind == 2 && value.fits_int64;
  throw OverflowError(std::string(op) + ": the value " +
                      (exact ? std::to_string(value.integer) : std::to_string(value.value)) + " does not fit " +
                      std::string(name(dtype)));
}

bool is_exact(const Number& x) { return x.kind == 2 && x.fits_int64; }

// How many of start, start + step ... come before stop.
double count_of(const Number& start, const Number& stop, const Number& step) {
  std::int64_t distance;
  const bool exact = is_exact(start) && is_exact(stop) && is_exact(step) &&
                     !__builtin_sub_overflow(stop.integer, start.integer, &distance);
  if (!exact) return std::ceil((stop.value - start.value) / step.value);
  if (distance == 0 || (distance > 0) != (step.integer > 0)) return 0;
  return static_cast<double>((distance + (distance > 0 ? -1 : 1)) / step.integer + 1);
}

// The last of `count` numbers from start on.
Number last_of(const Number& start, const Number& step, std::int64_t count) {
  const Number approximate = start.value + static_cast<double>(count - 1) * step.value;
  std::int64_t way, last;
  if (!is_exact(start) || !is_exact(step) || __builtin_mul_overflow(count - 1, step.integer, &way) ||
      __builtin_add_overflow(start.integer, way, &last))
    return approximate;
  return last;
}

}  // namespace

NArray zeros(const Shape& shape, DType dtype) {
  require_axes("zeros", shape);
  return full(shape, 0, dtype);
}
NArray ones(const Shape& shape, DType dtype) {
  require_axes("ones", shape);
  return full(shape, 1, dtype);
}
NArray full(const Shape& shape, const Number& value, DType dtype) {
  require_fit("full", value, dtype);
  return record(op_full, {}, std::make_shared<CreateParams>(shape, dtype, CreateParams::Names{"value"}, value));
}

NArray arange(const Number& start, const Number& stop, const Number& step, DType dtype) {
  if (step.value == 0 || !std::isfinite(start.value) || !std::isfinite(stop.value) || !std::isfinite(step.value))
    throw ShapeError("arange(" + std::to_string(start.value) + ", " + std::to_string(stop.value) + ", " +
                     std::to_string(step.value) + "): the step must not be 0 and all three must be finite");
  const double count = count_of(start, stop, step);
  if (count > 1e18) throw ShapeError("arange: " + std::to_string(count) + " elements are too many");
  const Shape shape{count > 0 ? static_cast<std::int64_t>(count) : 0};
  if (shape.size() > 0 || !start.fits_int64) require_fit("arange", start, dtype);
  if (shape.size() > 0) require_fit("arange", last_of(start, step, shape.size()), dtype);
  return record(op_arange, {}, std::make_shared<CreateParams>(shape, dtype, CreateParams::Names{"start", "step"}, start, step));
}

NArray zeros_like(const NArray& x, std::optional<DType> dtype) { return full_like(x, 0, dtype); }
NArray ones_like(const NArray& x, std::optional<DType> dtype) { return full_like(x, 1, dtype); }
NArray full_like(const NArray& x, const Number& value, std::optional<DType> dtype) {
  return full(x.shape(), value, dtype.value_or(x.dtype()));
}

NArray eye(std::int64_t n, std::int64_t m, std::int64_t k, DType dtype) {
  const Shape shape{n, m};  // refuses what is no length
  // Clamped, a diagonal outside stays outside, and int32 holds it.
  k = std::clamp(k, -n, m);
  const auto range = [](std::int64_t from, std::int64_t count) {
    return arange(static_cast<double>(from), static_cast<double>(from + count), 1, DType::kFloat64);
  };
  return (range(k, n).reshape({n, 1}) == range(0, m).reshape({1, m})).astype(dtype);
}

// As NumPy does it: in float64, the last element exactly `stop`, rounded down to integers.
NArray linspace(double start, double stop, std::int64_t num, bool endpoint, DType dtype) {
  if (!std::isfinite(start) || !std::isfinite(stop))
    throw ValueError("linspace: start and stop must be finite, got " + text(start) + " and " + text(stop));
  if (num < 0) throw ShapeError("linspace: num must not be negative, got " + std::to_string(num));
  require_fit("linspace", start, dtype);
  require_fit("linspace", stop, dtype);
  const std::int64_t steps = endpoint ? num - 1 : num;
  const NArray i = arange(0, static_cast<double>(num), 1, DType::kFloat64);
  NArray x = i * (steps > 0 ? (stop - start) / static_cast<double>(steps) : 0.0) + start;
  if (endpoint && num > 1) x = elewise::where(i == steps, stop, x);
  return (is_float(dtype) || dtype == DType::kBool ? x : elewise::floor(x)).astype(dtype);
}

namespace {

void require_float(const char* op, DType dtype) {
  if (!is_float(dtype))
    throw DTypeError(std::string(op) + ": dtype must be a float type, got " + std::string(name(dtype)) +
                     "; draw floats and convert them with astype");
}

// The largest half below `high`.
template <class Half> double below(double high, Half (*round)(double)) {
  Half half = round(high);
  if (to_float(half) < high) return to_float(half);
  constexpr std::uint16_t kSign = 0x8000;
  if ((half.bits & ~kSign) == 0) half.bits = kSign | 1;
  else half.bits = static_cast<std::uint16_t>(half.bits & kSign ? half.bits + 1 : half.bits - 1);
  return to_float(half);
}

constinit thread_local SampleRange samples;

// Narrow types and int64 are converted from float32 numbers.
NArray random(const OpRecord& op, std::int64_t first, const Shape& shape, DType dtype, CreateParams::Names names,
              double a, double b) {
  if (samples.count > 0 && shape.ndim() > 0 && shape[shape.ndim() - 1] == samples.count)
    first += samples.start * (shape.size() / samples.count);
  if (first < 0 || first > std::numeric_limits<std::int64_t>::max() - shape.size())
    throw ValueError(std::string(op.name) + ": the first element of a part must be from 0 to 2**63 - 1 less its size, got " +
                     std::to_string(first));
  const DType drawn = is_narrow(dtype) || dtype == DType::kInt64 ? DType::kFloat32 : dtype;
  auto params = std::make_shared<CreateParams>(shape, drawn, names, a, b);
  params->random = true;
  const RandomState now = generator.next();
  params->seed = now.seed;
  params->call = now.drawn;
  params->first = first;
  return record_cast(record(op, {}, std::move(params)), dtype);
}

}  // namespace

NArray rand_part(std::int64_t first, const Shape& shape, double low, double high, DType dtype) {
  require_float("rand", dtype);
  const double largest = dtype == DType::kFloat64    ? std::numeric_limits<double>::max()
                         : dtype == DType::kFloat16 ? 65504
                                                    : double{std::numeric_limits<float>::max()};
  if (!(low <= high && high - low <= largest && std::abs(low) <= largest && std::abs(high) <= largest))
    throw ValueError("rand: low must not be above high, and both and their difference must be finite " +
                     std::string(name(dtype)) + " numbers, got " + text(low) + " and " + text(high));
  if (!is_half(dtype)) return random(op_rand, first, shape, dtype, {"low", "high"}, low, high);
  // A number just below `high` must not be rounded to it.
  const NArray x = random(op_rand, first, shape, DType::kFloat32, {"low", "high"}, low, high);
  const double last = dtype == DType::kFloat16 ? below(high, to_float16) : below(high, to_bfloat16);
  return record_cast(low < high ? elewise::minimum(x, std::max(last, low)) : x, dtype);
}
NArray randn_part(std::int64_t first, const Shape& shape, double mu, double sigma, DType dtype) {
  if (!(sigma >= 0))
    throw ValueError("randn: sigma, the standard deviation, must not be negative, got " + text(sigma));
  require_float("randn", dtype);
  return random(op_randn, first, shape, dtype, {"mu", "sigma"}, mu, sigma);
}
NArray randb_part(std::int64_t first, const Shape& shape, double prob, DType dtype) {
  if (!(prob >= 0 && prob <= 1))
    throw ValueError("randb: prob must be a probability from 0 to 1, got " + text(prob));
  return random(op_randb, first, shape, dtype, {"probability"}, prob, 0);
}

NArray rand(const Shape& shape, double low, double high, DType dtype) { return rand_part(0, shape, low, high, dtype); }
NArray randn(const Shape& shape, double mu, double sigma, DType dtype) {
  return randn_part(0, shape, mu, sigma, dtype);
}
NArray randb(const Shape& shape, double prob, DType dtype) { return randb_part(0, shape, prob, dtype); }
void set_samples(const SampleRange& range) { samples = range; }
void seed(std::uint64_t n) { generator.set_state({n, 0}); }
RandomState random_state() { return generator.state(); }
void set_random_state(const RandomState& state) { generator.set_state(state); }

NArray from_host(const void* data, const Shape& shape, DType dtype) { return record_data(data, shape, dtype); }
NArray from_host(const std::vector<bool>& values, const Shape& shape) {
  const auto bytes = std::make_unique<bool[]>(values.size());
  std::copy(values.begin(), values.end(), bytes.get());
  return from_host(std::span<const bool>(bytes.get(), values.size()), shape);
}

bool Number::fits(DType type) const {
  const auto within = [this](auto low, auto high) {
    if (kind != 3) return fits_int64 && integer >= low && integer <= high;
    return value > static_cast<double>(low) - 1 && value < static_cast<double>(high) + 1;  // int64's have no place between
  };
  switch (type) {
    case DType::kUInt8: return within(0, 255);
    case DType::kInt32: return within(INT32_MIN, INT32_MAX);
    case DType::kInt64: return kind != 3 ? fits_int64 : value >= -0x1p63 && value < 0x1p63;
    default: return true;
  }
}

void detail::refuse_count(std::size_t count, const Shape& shape) {
  throw ShapeError("from_host: got " + std::to_string(count) + " elements, shape " + shape.str() + " has " +
                   std::to_string(shape.size()));
}

}  // namespace owl
