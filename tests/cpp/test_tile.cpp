// The interpreter of fused programs against plain loops: each element separately, one operation after another. Bits
// must agree, which also shows that they do not depend on tiles, chunks or tails.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "backend/cpu/denormals.h"
#include "backend/cpu/isa/kernels.h"
#include "backend/cpu/run_program.h"
#include "backend/cpu/tile.h"
#include "device/allocator.h"
#include "ops/elementwise.h"
#include "ops/records.h"
#include "runtime/engine.h"

namespace owl::cpu {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937;

int pick(Random& random, int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); }

void put(void* to, DType type, double v) {
  switch (type) {
    case DType::kBool: *static_cast<std::uint8_t*>(to) = v > 0; break;
    case DType::kUInt8: *static_cast<std::uint8_t*>(to) = static_cast<std::uint8_t>(std::abs(v) * 10); break;
    case DType::kInt32: *static_cast<std::int32_t*>(to) = static_cast<std::int32_t>(v * 10); break;
    case DType::kInt64: *static_cast<std::int64_t*>(to) = static_cast<std::int64_t>(v * 1e15); break;
    case DType::kFloat16: *static_cast<Float16*>(to) = to_float16(v); break;
    case DType::kBFloat16: *static_cast<BFloat16*>(to) = to_bfloat16(v); break;
    case DType::kFloat32: *static_cast<float*>(to) = static_cast<float>(v); break;
    case DType::kFloat64: *static_cast<double*>(to) = v; break;
  }
}

Bytes random_array(Random& random, DType type, std::int64_t n) {
  Bytes bytes(static_cast<std::size_t>(n) * itemsize(type));
  std::normal_distribution<double> normal(0, 3);
  for (std::int64_t i = 0; i < n; ++i)
    put(bytes.data() + static_cast<std::size_t>(i) * itemsize(type), type, pick(random, 20) == 0 ? 0 : normal(random));
  return bytes;
}

struct Case {
  Program program;
  std::vector<Bytes> inputs;        // the memory of each input
  std::vector<std::int64_t> first;  // the place of its first element there, if that is not 0
};

// A random well-typed program over `shape`; inputs broadcast along random axes.
Case random_case(Random& random, const Shape& shape, int instructions) {
  Case c;
  c.program.shape = shape;
  std::vector<DType> types;
  const int inputs = 1 + pick(random, 4);
  for (int i = 0; i < inputs; ++i) {
    const auto type = pick(random, 3) ? DType::kFloat32 : static_cast<DType>(pick(random, kDTypeCount));
    Program::Input input{type, {}, true};
    std::int64_t size = 1;
    const bool dense = pick(random, 2);
    for (int a = 0; a < shape.ndim(); ++a) {
      const bool repeat = !dense && pick(random, 2);
      if (repeat && shape[a] != 1) input.dense = false;
      input.strides[a] = repeat ? 0 : size;
      if (!repeat) size *= shape[a];
    }
    c.program.inputs.push_back(input);
    c.inputs.push_back(random_array(random, type, size));
    types.push_back(type);
  }
  for (int i = 0; i < 2; ++i) {
    c.program.constants.push_back({DType::kFloat32, 0.5 + i});
    types.push_back(DType::kFloat32);
  }
  for (int s = 0; s < instructions; ++s) {
    const auto code = static_cast<std::uint16_t>(pick(random, kElementwiseCount));
    const auto& info = elementwise_ops::All::infos[code];
    const auto any = [&] { return static_cast<std::uint16_t>(pick(random, static_cast<int>(types.size()))); };
    Program::Instruction step{code, DType::kFloat32, DType::kFloat32, static_cast<std::uint8_t>(info.arity), {}};
    step.in[0] = any();
    step.dtype = types[step.in[0]];
    bool fits = true;
    for (int k = 1; k < info.arity; ++k) {
      step.in[k] = any();
      if (info.rule == TypeRule::kSelect && k == 1) step.dtype = types[step.in[1]];
      fits = fits && types[step.in[k]] == step.dtype;
    }
    if (info.rule == TypeRule::kSelect) fits = fits && types[step.in[0]] == DType::kBool;
    step.result = code == kCastCode ? static_cast<DType>(pick(random, kDTypeCount))
                  : info.rule == TypeRule::kCompare || info.rule == TypeRule::kPredicate ? DType::kBool
                                                                                         : step.dtype;
    if (!fits || (code != kCastCode && tile_function(code, step.dtype) == nullptr)) {
      --s;
      continue;
    }
    c.program.instructions.push_back(step);
    types.push_back(step.result);
  }
  const int outputs = 1 + pick(random, 3);
  for (int o = 0; o < outputs; ++o) {
    const auto v = static_cast<std::uint16_t>(o == 0 ? static_cast<int>(types.size()) - 1
                                                     : pick(random, static_cast<int>(types.size())));
    c.program.outputs.push_back({v, types[v]});
  }
  return c;
}

// One element at a time.
std::vector<Bytes> expected(const Case& c) {
  const Program& p = c.program;
  const auto n = p.shape.size();
  std::vector<Bytes> results;
  for (const auto& o : p.outputs) results.emplace_back(static_cast<std::size_t>(n) * itemsize(o.dtype));
  std::vector<std::array<std::uint8_t, 8>> values(p.inputs.size() + p.constants.size() + p.instructions.size());
  for (std::int64_t at = 0; at < n; ++at) {
    std::size_t v = 0;
    for (std::size_t i = 0; i < p.inputs.size(); ++i) {
      std::int64_t rest = at, offset = c.first.empty() ? 0 : c.first[i];
      for (int a = 0; a < p.shape.ndim(); ++a) {
        offset += rest % p.shape[a] * p.inputs[i].strides[a];
        rest /= p.shape[a];
      }
      const auto item = itemsize(p.inputs[i].dtype);
      std::memcpy(values[v++].data(), c.inputs[i].data() + static_cast<std::size_t>(offset) * item, item);
    }
    for (const auto& k : p.constants) {
      const auto f = static_cast<float>(k.value);
      std::memcpy(values[v++].data(), &f, sizeof f);
    }
    for (const auto& s : p.instructions) {
      const TileFn fn = s.code == kCastCode ? cast_function(s.dtype, s.result) : tile_function(s.code, s.dtype);
      fn(values[v].data(), values[s.in[0]].data(), values[s.in[1]].data(), values[s.in[2]].data(), 1);
      ++v;
    }
    for (std::size_t o = 0; o < p.outputs.size(); ++o) {
      const auto item = itemsize(p.outputs[o].dtype);
      std::memcpy(results[o].data() + static_cast<std::size_t>(at) * item, values[p.outputs[o].value].data(), item);
    }
  }
  return results;
}

Addresses<const void*> pointers(const std::vector<Bytes>& arrays) {
  Addresses<const void*> p;
  for (const auto& a : arrays) p.push_back(a.data());
  return p;
}
Addresses<const void*> pointers(const Case& c) {
  auto p = pointers(c.inputs);
  for (std::size_t i = 0; i < c.first.size(); ++i)
    p[i] = c.inputs[i].data() + static_cast<std::size_t>(c.first[i]) * itemsize(c.program.inputs[i].dtype);
  return p;
}

// The chunks of each stage in the reverse order.
void launch_and_run(const Program& program, Addresses<const void*> inputs, Addresses<void*> outputs) {
  Launch launch;
  launch.device = &Engine::get().device(0);
  launch_program(program, std::move(inputs), std::move(outputs), launch);
  for (const auto& stage : launch.stages)
    for (std::int64_t chunk = stage.chunks; chunk-- > 0;) stage.body(chunk);
  for (auto& [data, bytes] : launch.scratch_blocks) launch.device->allocator.free(data, bytes);
}

std::vector<Bytes> run(const Case& c, bool launched) {
  std::vector<Bytes> outputs;
  Addresses<void*> out;
  for (const auto& o : c.program.outputs)
    outputs.emplace_back(static_cast<std::size_t>(c.program.shape.size()) * itemsize(o.dtype), std::uint8_t{0xee});
  for (auto& o : outputs) out.push_back(o.data());
  if (launched) {
    launch_and_run(c.program, pointers(c), out);
  } else {
    run_program(c.program, pointers(c).data(), out.data());
  }
  return outputs;
}

TEST(Tile, RandomProgramsMatchElementByElement) {
  Random random(7);
  const Shape shapes[] = {Shape{1}, Shape{15}, Shape{16}, Shape{17}, Shape{1000}, Shape{7, 5}, Shape{1, 33},
                          Shape{10, 257}, Shape{3, 4, 5}, Shape{2, 1, 300, 3}, Shape{5000}, Shape{300, 40}};
  for (int trial = 0; trial < 400; ++trial) {
    const Case c = random_case(random, shapes[trial % 12], pick(random, 12));
    const auto want = expected(c);
    EXPECT_EQ(run(c, false), want) << "trial " << trial << ", shape " << c.program.shape.str();
    EXPECT_EQ(run(c, true), want) << "trial " << trial << " in chunks, shape " << c.program.shape.str();
  }
}

// Windows, steps, reversed, transposed and repeated axes, over rows around the lengths at which the interpreter begins to
// run row by row.
void make_strided(Random& random, Case& c) {
  const Shape& shape = c.program.shape;
  c.first.assign(c.inputs.size(), 0);
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    auto& input = c.program.inputs[i];
    if (pick(random, 4) == 0) continue;
    std::vector<int> order;
    for (int a = 0; a < shape.ndim(); ++a) order.insert(pick(random, 4) ? order.end() : order.begin(), a);
    std::int64_t size = 1;
    for (const int a : order) {
      static constexpr std::int64_t kSteps[] = {1, 1, 1, 2, 3, -1, -2, 0};
      const std::int64_t step = kSteps[pick(random, 8)];
      input.strides[a] = shape[a] == 1 ? 0 : step * size;
      if (step < 0) c.first[i] -= step * size * (shape[a] - 1);
      if (step != 0) size *= shape[a] * std::abs(step) + pick(random, 2);
    }
    input.dense = input.strides == shape.dense_strides();
    c.inputs[i] = random_array(random, input.dtype, size);
  }
}

TEST(Tile, StridedInputsMatchElementByElement) {
  Random random(17);
  const Shape shapes[] = {Shape{63, 5},  Shape{64, 6},   Shape{80, 7},   Shape{255, 3},    Shape{256, 4},
                          Shape{259, 5}, Shape{1024, 4}, Shape{1031, 5}, Shape{2048, 3},   Shape{70, 3, 4},
                          Shape{272, 2, 3}, Shape{9000}, Shape{7, 9, 5, 3}, Shape{300, 1, 2}, Shape{96, 96, 2}};
  for (int trial = 0; trial < 600; ++trial) {
    // Mostly one or two instructions: these have the longest tiles.
    Case c = random_case(random, shapes[trial % 15], pick(random, 3) ? 1 + pick(random, 2) : pick(random, 12));
    make_strided(random, c);
    const auto want = expected(c);
    EXPECT_EQ(run(c, false), want) << "trial " << trial << ", shape " << c.program.shape.str();
    EXPECT_EQ(run(c, true), want) << "trial " << trial << " in chunks, shape " << c.program.shape.str();
  }
}

TEST(Tile, NothingToDoForEmptyShapes) {
  Random random(1);
  Case c = random_case(random, Shape{4, 0, 3}, 5);
  EXPECT_EQ(run(c, false)[0].size(), 0u);
  EXPECT_EQ(run(c, true)[0].size(), 0u);
}

// The result takes over an operand's memory: it must not be written before the last read.
TEST(Tile, OutputMayTakeADenseInputsMemory) {
  Random random(11);
  for (int trial = 0; trial < 200; ++trial) {
    Case c = random_case(random, Shape{trial % 2 ? 1003 : 40, 3}, 1 + pick(random, 8));
    const auto want = expected(c);
    for (std::size_t o = 0; o < c.program.outputs.size(); ++o)
      for (std::size_t i = 0; i < c.inputs.size(); ++i) {
        const auto& in = c.program.inputs[i];
        if (!in.dense || itemsize(in.dtype) != itemsize(c.program.outputs[o].dtype)) continue;
        auto inputs = c.inputs;
        std::vector<Bytes> outputs = want;
        Addresses<void*> out;
        for (auto& b : outputs) out.push_back(b.data());
        out[o] = inputs[i].data();
        if (trial % 3) {
          run_program(c.program, pointers(inputs).data(), out.data());
        } else {
          launch_and_run(c.program, pointers(inputs), out);
        }
        outputs[o] = inputs[i];
        EXPECT_EQ(outputs, want) << "trial " << trial << ", output " << o << " in input " << i;
      }
  }
}

// A dense copy of a transposed operand may be made in an output's memory, unless that is another operand's.
TEST(Tile, TransposedOperandsBesideAnOutputInPlace) {
  Random random(19);
  const auto f = DType::kFloat32;
  for (const Shape& shape : {Shape{120, 110}, Shape{600, 40}, Shape{8, 1500}, Shape{64, 20, 9}}) {
    Case c;
    c.program.shape = shape;
    Strides transposed{}, dense = shape.dense_strides();
    std::int64_t step = 1;
    for (int a = shape.ndim(); a-- > 0; step *= shape[a]) transposed[static_cast<std::size_t>(a)] = step;
    c.program.inputs = {{f, transposed, false}, {f, dense, true}, {f, transposed, false}};
    for (int i = 0; i < 3; ++i) c.inputs.push_back(random_array(random, f, shape.size()));
    const auto sub = find_elementwise("sub")->code, mult = find_elementwise("mult")->code;
    c.program.instructions = {{sub, f, f, 2, {0, 1, 0}}, {mult, f, f, 2, {3, 2, 0}}};
    for (const bool both : {false, true}) {
      c.program.outputs = {{4, f}};
      if (both) c.program.outputs.push_back({3, f});
      const auto want = expected(c);
      EXPECT_EQ(run(c, true), want) << shape.str();
      for (std::size_t o = 0; o < want.size(); ++o) {  // each output in the dense operand's memory
        auto inputs = c.inputs;
        auto outputs = want;
        for (auto& bytes : outputs) std::ranges::fill(bytes, std::uint8_t{0xee});
        Addresses<void*> out;
        for (auto& bytes : outputs) out.push_back(bytes.data());
        out[o] = inputs[1].data();
        launch_and_run(c.program, pointers(inputs), out);
        outputs[o] = inputs[1];
        EXPECT_EQ(outputs, want) << shape.str() << ", output " << o;
      }
    }
  }
}

TEST(Tile, StridedCopies) {
  Random random(3);
  const Shape shapes[] = {Shape{67, 45}, Shape{128, 96, 3}, Shape{5, 7, 9, 2}, Shape{1, 300}, Shape{700, 300}};
  for (const Shape& shape : shapes)
    for (const DType type : {DType::kBool, DType::kFloat32, DType::kFloat64})
      for (int trial = 0; trial < 6; ++trial) {
        Case c;
        c.program.shape = shape;
        Program::Input input{type, {}, false};
        std::vector<int> order(static_cast<std::size_t>(shape.ndim()));
        for (int a = 0; a < shape.ndim(); ++a) order[static_cast<std::size_t>(a)] = a;
        std::shuffle(order.begin(), order.end(), random);
        std::int64_t size = 1;
        for (const int a : order) {
          input.strides[a] = size;
          size *= shape[a] + pick(random, 2);
        }
        c.program.inputs = {input};
        c.program.outputs = {{0, type}};
        c.inputs = {random_array(random, type, size)};
        const auto want = expected(c);
        EXPECT_EQ(run(c, false), want) << shape.str();
        EXPECT_EQ(run(c, true), want) << shape.str();
      }
}

// The compiled copies of the loops that this processor can run.
std::vector<const TileTable*> tile_tables() {
  std::vector<const TileTable*> tables = {&baseline::tile_table()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(&avx2::tile_table());
#endif
  if (std::ranges::count(tables, &best_tile_table()) == 0) tables.push_back(&best_tile_table());  // AVX-512's
  return tables;
}

// Every third element becomes random bits, so that all exponents, infinities and NaNs are among them.
void put_any_bits(Random& random, Bytes& bytes, DType type) {
  if (type != DType::kFloat32 && type != DType::kFloat64) return;
  const std::size_t size = itemsize(type);
  for (std::size_t at = 0; at + size <= bytes.size(); at += 3 * size)
    for (std::size_t k = 0; k < size; ++k) bytes[at + k] = static_cast<std::uint8_t>(random());
}

// Which NaN a function gives may depend on the order of an instruction's operands: all become one.
template <class T> void merge_nans(Bytes& bytes) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (std::size_t at = 0; at + sizeof(T) <= bytes.size(); at += sizeof(T)) {
    T x;
    std::memcpy(&x, bytes.data() + at, sizeof x);
    if (std::isnan(x)) std::memcpy(bytes.data() + at, &nan, sizeof nan);
  }
}

// Two results of one operation on two instruction sets, of which one has no fused multiply-add. Denormal numbers have
// the last place of the smallest normal one.
template <class T> void expect_near(const Bytes& got, const Bytes& want, double tolerance, const char* name) {
  for (std::size_t i = 0; i < want.size() / sizeof(T); ++i) {
    T a, b;
    std::memcpy(&a, got.data() + i * sizeof a, sizeof a);
    std::memcpy(&b, want.data() + i * sizeof b, sizeof b);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    const double least = std::numeric_limits<T>::min(), size = std::max(std::abs(static_cast<double>(b)), least);
    ASSERT_LE(std::abs(static_cast<double>(a) - static_cast<double>(b)), tolerance * size) << name << ", element " << i;
  }
}

// The same bits from every copy with fused multiply-adds; with the baseline's, except for the last bits of functions.
TEST(Tile, InstructionSetsAgree) {
  const auto tables = tile_tables();
  Random random(5);
  constexpr std::int64_t n = 4099;
  for (int code = 1; code < kElementwiseCount; ++code)
    for (int type = 0; type < kTypes; ++type) {
      if (tables[0]->functions[code][type] == nullptr) continue;
      const auto dtype = static_cast<DType>(type);
      const auto& info = elementwise_ops::All::infos[code];
      Bytes a = random_array(random, info.rule == TypeRule::kSelect ? DType::kBool : dtype, n),
            b = random_array(random, dtype, n), c = random_array(random, dtype, n);
      if (info.rule != TypeRule::kSelect) put_any_bits(random, a, dtype);
      std::vector<Bytes> results;
      for (const auto* table : tables) {
        results.emplace_back(static_cast<std::size_t>(n) * itemsize(dtype));
        table->functions[code][type](results.back().data(), a.data(), b.data(), c.data(), n);
        if (dtype == DType::kFloat32) merge_nans<float>(results.back());
        if (dtype == DType::kFloat64) merge_nans<double>(results.back());
      }
      for (std::size_t k = 2; k < results.size(); ++k) EXPECT_EQ(results[k], results[1]) << info.name << " " << type;
      const bool floats = info.rule == TypeRule::kFloat || info.rule == TypeRule::kIntFromBool;
      if (floats && dtype == DType::kFloat32) expect_near<float>(results.back(), results[0], 6e-7, info.name);
      else if (floats && dtype == DType::kFloat64) expect_near<double>(results.back(), results[0], 1e-13, info.name);
      else EXPECT_EQ(results.back(), results[0]) << info.name << " " << type;
    }
}

// NaNs with different payloads: which of two NaNs a sum propagates is part of its result.
[[maybe_unused]] void put_nans(Random& random, Bytes& bytes, DType type) {
  const auto n = static_cast<int>(bytes.size() / itemsize(type));
  for (int k = 0; k < n / 8; ++k) {
    auto* const at = bytes.data() + static_cast<std::size_t>(pick(random, n)) * itemsize(type);
    const auto payload = static_cast<std::uint32_t>(pick(random, 1000));
    const std::uint32_t sign = pick(random, 2) ? 1 : 0;
    if (type == DType::kFloat32) {
      const std::uint32_t nan = 0x7fc00000u | payload | sign << 31;
      std::memcpy(at, &nan, sizeof nan);
    } else if (type == DType::kFloat64) {
      const std::uint64_t nan = 0x7ff8000000000000u | payload | std::uint64_t{sign} << 63;
      std::memcpy(at, &nan, sizeof nan);
    }
  }
}

// clip has a fast path for tiles whose bounds are numbers.
TEST(Tile, ClipIsTheMinimumOfAMaximum) {
  Random random(8);
  constexpr std::int64_t n = 4096 + 5;
  const auto code = [](const char* name) { return find_elementwise(name)->code; };
  for (const auto* table : tile_tables())
    for (const DType type : {DType::kInt32, DType::kFloat32, DType::kFloat64})
      for (int with_nans = 0; with_nans < 8; ++with_nans) {  // a bit for each operand
        const auto t = static_cast<std::size_t>(type);
        Bytes operands[] = {random_array(random, type, n), random_array(random, type, n), random_array(random, type, n)};
        for (int k = 0; k < 3; ++k)
          if (with_nans >> k & 1) put_nans(random, operands[k], type);
        Bytes larger(operands[0].size()), want(operands[0].size()), got(operands[0].size());
        table->functions[code("maximum")][t](larger.data(), operands[0].data(), operands[1].data(), nullptr, n);
        table->functions[code("minimum")][t](want.data(), larger.data(), operands[2].data(), nullptr, n);
        table->functions[code("clip")][t](got.data(), operands[0].data(), operands[1].data(), operands[2].data(), n);
        EXPECT_TRUE(got == want) << name(type) << ", NaNs in " << with_nans;
      }
}

// Two operations in one pass give the bits of two passes.
TEST(Tile, PairsRoundTwice) {
  Random random(6);
  constexpr std::int64_t n = 4096;
  int pairs = 0;
  for (const auto* table : tile_tables())
    for (int first = 1; first < kElementwiseCount; ++first)
      for (int second = 1; second < kElementwiseCount; ++second)
        for (int type = 0; type < kTypes; ++type)
          for (const bool swapped : {false, true}) {
            const auto pair = table->pair(first, second, swapped, type);
            if (pair == nullptr) continue;
            ++pairs;
            const auto dtype = static_cast<DType>(type);
            Bytes a = random_array(random, dtype, n), b = random_array(random, dtype, n),
                  c = random_array(random, dtype, n), between(a.size()), want(a.size()), got(a.size());
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
            // Instrumented loops have other compiler options, which affect the NaN that a sum propagates.
            for (Bytes* x : {&a, &b, &c}) put_nans(random, *x, dtype);
#endif
            table->functions[first][type](between.data(), a.data(), b.data(), nullptr, n);
            table->functions[second][type](want.data(), swapped ? c.data() : between.data(),
                                           swapped ? between.data() : c.data(), nullptr, n);
            pair(got.data(), a.data(), b.data(), c.data(), n);
            EXPECT_TRUE(got == want) << elementwise_ops::All::infos[first].name << ", "
                                     << elementwise_ops::All::infos[second].name << (swapped ? " swapped, " : ", ")
                                     << name(dtype);
          }
  EXPECT_GT(pairs, 0);
}

// Chains of arithmetic, in which pairs are found; some intermediates have other readers or are results.
TEST(Tile, ArithmeticOfPairs) {
  Random random(7);
  for (int round = 0; round < 300; ++round) {
    const Shape shape{1 + pick(random, 3000)};
    const auto type = pick(random, 2) ? DType::kFloat32 : DType::kFloat64;
    Case c;
    c.program.shape = shape;
    for (int i = 0; i < 3; ++i) {
      c.program.inputs.push_back({type, shape.dense_strides(), true});
      c.inputs.push_back(random_array(random, type, shape.size()));
    }
    const int instructions = 1 + pick(random, 8);
    for (int s = 0; s < instructions; ++s) {
      static constexpr const char* kNames[] = {"add", "sub", "mult", "div"};
      const auto any = [&] { return static_cast<std::uint16_t>(2 + s - pick(random, 3)); };
      const auto code = find_elementwise(kNames[pick(random, 4)])->code;
      c.program.instructions.push_back({code, type, type, 2, {any(), any()}});
    }
    for (int v = 3; v < 3 + instructions; ++v)
      if (v == 2 + instructions || pick(random, 4) == 0)
        c.program.outputs.push_back({static_cast<std::uint16_t>(v), type});
    const auto want = expected(c);
    EXPECT_EQ(run(c, false), want) << round;
    EXPECT_EQ(run(c, true), want) << round;
  }
}

struct Accuracy {
  const char* name;
  double (*exact)(double);
};
class TileAccuracy : public testing::TestWithParam<Accuracy> {};

// Every 4099th float32. Denormal arguments and results are 0, as on owl's threads.
TEST_P(TileAccuracy, WithinTwoUlp) {
  const OpRecord* op = find_elementwise(GetParam().name);
  ASSERT_NE(op, nullptr);
  std::vector<float> x, y;
  for (std::uint64_t bits = 0; bits <= UINT32_MAX; bits += 4099)
    x.push_back(math::from_bits(static_cast<std::int32_t>(static_cast<std::uint32_t>(bits))));
  for (int i = -60000; i < 60000; ++i) x.push_back(static_cast<float>(i) * 3e-4f);
  y.resize(x.size());
  {
    const DenormalsToZero denormals;
    tile_function(op->code, DType::kFloat32)(y.data(), x.data(), nullptr, nullptr, static_cast<std::int64_t>(x.size()));
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = GetParam().exact(x[i]);
    const auto rounded = static_cast<float>(want);
    if (std::isnan(rounded) && std::isnan(y[i])) continue;
    if (std::fpclassify(x[i]) == FP_SUBNORMAL && y[i] == GetParam().exact(std::copysign(0.0, x[i]))) continue;
    if (std::abs(y[i] - want) < std::numeric_limits<float>::min()) continue;
    if (rounded == y[i]) continue;
    int exponent;
    std::frexp(std::max(std::abs(want), 1.17549435e-38), &exponent);
    ASSERT_LE(std::abs(y[i] - want), 2 * std::ldexp(1.0, exponent - 24))
        << GetParam().name << "(" << x[i] << ") = " << y[i] << ", expected " << want;
  }
}

double exact_softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
double exact_silu(double x) { return x < -200 ? 0.0 : x / (1 + std::exp(-x)); }
double exact_mish(double x) { return x < -200 ? 0.0 : x * std::tanh(std::log1p(std::exp(x))); }
double exact_gelu(double x) { return x < -40 ? 0.0 : 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

INSTANTIATE_TEST_SUITE_P(
    Functions, TileAccuracy,
    testing::Values(Accuracy{"exp", std::exp}, Accuracy{"expm1", std::expm1}, Accuracy{"ln", std::log},
                    Accuracy{"log1p", std::log1p}, Accuracy{"tanh", std::tanh}, Accuracy{"sin", std::sin},
                    Accuracy{"cos", std::cos}, Accuracy{"erf", std::erf}, Accuracy{"sqrt", std::sqrt},
                    Accuracy{"sigm", [](double x) { return 1 / (1 + std::exp(-x)); }},
                    Accuracy{"softplus", exact_softplus}, Accuracy{"gelu", exact_gelu},
                    Accuracy{"tan", std::tan}, Accuracy{"asin", std::asin}, Accuracy{"acos", std::acos},
                    Accuracy{"atan", std::atan}, Accuracy{"sinh", std::sinh}, Accuracy{"cosh", std::cosh},
                    Accuracy{"exp2", std::exp2}, Accuracy{"log2", std::log2}, Accuracy{"log10", std::log10},
                    Accuracy{"rsqrt", [](double x) { return 1 / std::sqrt(x); }},
                    Accuracy{"round", std::rint}, Accuracy{"trunc", std::trunc}, Accuracy{"silu", exact_silu},
                    Accuracy{"mish", exact_mish}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Tile, PowerFollowsTheStandard) {
  const float values[] = {0.0f, -0.0f, 1.0f, -1.0f, 2.0f, -2.0f, 3.0f, 0.5f, -0.5f, 1e30f, -1e30f, 16777217.0f,
                          math::kInf, -math::kInf, math::kNaN, 1e-20f, -7.0f};
  const TileFn fn = tile_function(find_elementwise("pow")->code, DType::kFloat32);
  for (const float x : values)
    for (const float y : values) {
      float got;
      fn(&got, &x, &y, nullptr, 1);
      const auto want = static_cast<float>(std::pow(static_cast<double>(x), static_cast<double>(y)));
      if (std::isnan(want)) EXPECT_TRUE(std::isnan(got)) << x << " ** " << y;
      else EXPECT_FLOAT_EQ(got, want) << x << " ** " << y;
      EXPECT_EQ(std::signbit(got) && !std::isnan(got), std::signbit(want) && !std::isnan(want)) << x << " ** " << y;
    }
}

}  // namespace
}  // namespace owl::cpu
