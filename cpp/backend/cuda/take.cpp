// Choosing elements by indices, adding to them, and sorting.
#include "ops/take.h"

#include "backend/cuda/kernels.h"
#include "backend/cuda/printer.h"
#include "ops/sort.h"

namespace owl::cuda {

namespace {

constexpr std::int64_t kEach = 4;    // elements of a thread
constexpr std::int64_t kRun = 1024;  // keys that a block sorts

std::int64_t blocks_of(std::int64_t elements) { return blocks_for((elements + kEach - 1) / kEach); }

void launch(const char* kernel, std::string_view file, const std::string& types, std::int64_t elements,
            const Slots& slots, Emit& emit, bool stores = false) {
  emit.launch({kernel, file, types}, blocks_of(elements), slots, false, stores);
}

// The numbers in the order of the slots.
template <class... Values> Slots slots_of(Values... values) {
  Slots slots;
  const auto add = [&](auto value) {
    if constexpr (std::is_pointer_v<decltype(value)>) slots.add(static_cast<const void*>(value));
    else slots.add(static_cast<std::int64_t>(value));
  };
  (add(values), ...);
  return slots;
}

// Lines of keys, sorted in one of two blocks of memory: returns which.
void* sort_keys(void* keys, std::size_t itemsize, const std::string& type, std::int64_t lines, std::int64_t length,
                Emit& emit) {
  const std::int64_t size = lines * length, runs = (length + kRun - 1) / kRun;
  const std::string key = "using Key = " + type + ";\n";
  // Key is declared by the text if it is Wide.
  const auto types = [&](const char* part) {
    return (type == "Wide" ? "struct Wide;\n" : "") + key + "#define " + part + "\n";
  };
  emit.launch({"owl_sort_runs", text::sort, types("OWL_SORT_RUNS")}, lines * runs, slots_of(keys, length, runs), false,
              false);
  if (runs == 1) return keys;
  void* other = emit.scratch(static_cast<std::size_t>(size) * itemsize);
  for (std::int64_t run = kRun; run < length; run *= 2) {
    launch("owl_sort_merge", text::sort, types("OWL_SORT_MERGE"), size, slots_of(keys, other, length, run, size), emit);
    std::swap(keys, other);
  }
  return keys;
}

}  // namespace

void check_indices(const Args& args, Emit& emit) {
  const auto& p = static_cast<const CheckIndicesParams&>(*args.params);
  const std::int64_t count = args.out.shape.size();
  const void* const refused = emit.watch([p](std::int64_t index) { return p.out_of_range(index); });
  launch("owl_check_indices", text::take,
         std::string("#define OWL_CHECK_INDICES\nusing I = ") + type_name(args.in[0].dtype) + ";\n", count,
         slots_of(count, p.length, p.from_end, refused), emit);
}

void take(const Args& args, Emit& emit) {
  const AroundAxis from(args.in[0].shape, static_cast<const TakeParams&>(*args.params).axis);
  const std::int64_t size = args.out.shape.size();
  const std::string type = type_name(args.in[0].dtype);
  launch("owl_take", text::take, "#define OWL_TAKE\nusing T = " + type + ";\nusing R = T;\n", size,
         slots_of(args.in[1].data, args.in[1].shape.size(), from.inner, from.length, size), emit, true);
}

// The places are sorted, with their order below them: then the values of each are added by one thread, in that order.
void put_add(const Args& args, Emit& emit) {
  const AroundAxis to(args.out.shape, static_cast<const TakeParams&>(*args.params).axis);
  const std::int64_t count = args.in[1].shape.size(), size = args.in[2].shape.size();
  if (args.in[0].data != args.out.data) {
    Program same;
    same.shape = args.out.shape;
    same.inputs.push_back({args.out.dtype, args.out.shape.dense_strides(), true});
    same.outputs.push_back({0, args.out.dtype});
    emit.program(same, {args.in[0].data}, {args.out.data});
  }
  if (size == 0) return;
  void* const keys = emit.scratch(static_cast<std::size_t>(count) * sizeof(std::uint64_t));
  launch("owl_put_add_keys", text::take, "#define OWL_PUT_ADD_KEYS\n", count, slots_of(args.in[1].data, count, keys), emit);
  const void* const sorted = sort_keys(keys, sizeof(std::uint64_t), "uint64_t", 1, count, emit);
  const std::string type = args.out.dtype == DType::kInt32   ? "uint32_t"
                           : args.out.dtype == DType::kInt64 ? "uint64_t"
                                                             : type_name(args.out.dtype);
  launch("owl_put_add", text::take, "#define OWL_PUT_ADD\nusing T = " + type + ";\n", size,
         slots_of(args.out.data, sorted, count, args.in[2].data, to.inner, to.length, size), emit);
}

void sort(const Args& args, Emit& emit) {
  const auto& p = static_cast<const SortParams&>(*args.params);
  const ArrayRef& x = args.in[0];
  const AroundAxis around(x.shape, p.axis);
  const bool wide = itemsize(x.dtype) == 8;
  const std::string key = wide ? "Wide" : "uint64_t", type = type_name(x.dtype);
  const std::string types = (wide ? "struct Wide;\n" : "") + ("using Key = " + key) + ";\nusing T = " + type + ";\n";
  const std::size_t bytes = wide ? 16 : sizeof(std::uint64_t);
  const std::int64_t size = x.shape.size(), lines = around.inner * around.outer, results = lines * p.count;
  void* const keys = emit.scratch(static_cast<std::size_t>(size) * bytes);
  const std::int64_t turned = !p.largest_first ? 0 : wide ? std::int64_t{-1} : std::int64_t{0xffffffff};
  launch("owl_sort_keys", text::sort, types + "#define OWL_SORT_KEYS\n", size,
         slots_of(keys, around.inner, around.length, size, turned), emit);
  const void* const sorted = sort_keys(keys, bytes, key, lines, around.length, emit);
  launch("owl_sort_write", text::sort, types + "#define OWL_SORT_WRITE\n", results,
         slots_of(sorted, around.inner, around.length, p.count, results, args.results[0].data, args.results[1].data),
         emit);
}

}  // namespace owl::cuda
