// An array as text.
#include "graph/print.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <ostream>

#include "graph/record.h"

namespace owl {

namespace {

// NumPy's limits.
constexpr std::int64_t kThreshold = 1000, kEdge = 3;
constexpr std::size_t kLineWidth = 75;

// The printed elements of an axis, and their place in the excerpt.
struct Piece {
  std::int64_t from, to, count;
};

std::vector<Piece> pieces_of(std::int64_t length, bool cut, std::int64_t edge) {
  if (!cut || length <= 2 * edge) return {{0, 0, length}};
  return {{0, 0, edge}, {length - edge, edge + 1, edge}};
}

// Copies x[pieces] to its place in the excerpt.
void copy_block(const NArray& x, std::span<const Piece> pieces, Excerpt& excerpt) {
  std::vector<IndexItem> items;
  for (const Piece& p : pieces) items.push_back({IndexItem::Kind::kSlice, p.from, p.count, 1});
  const NArray block = x.index(items);
  const std::size_t item = itemsize(x.dtype());
  std::vector<std::byte> values(static_cast<std::size_t>(block.size()) * item);
  block.copy_to_host(values.data());
  const Strides strides = excerpt.shape.dense_strides();
  for (std::int64_t i = 0; i < block.size(); ++i) {
    std::int64_t to = 0, rest = i;
    for (std::size_t axis = 0; axis < pieces.size(); ++axis) {
      to += (pieces[axis].to + rest % pieces[axis].count) * strides[axis];
      rest /= pieces[axis].count;
    }
    std::memcpy(excerpt.values.data() + static_cast<std::size_t>(to) * item,
                values.data() + static_cast<std::size_t>(i) * item, item);
  }
}

template <class T> std::string number_text(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  char text[32];
  char* const end = text + sizeof text;
  if constexpr (std::same_as<T, double>) {
    constexpr int kDigits = 9;
    return {text, std::to_chars(text, end, value, std::chars_format::general, kDigits).ptr};
  } else {
    return {text, std::to_chars(text, end, value).ptr};  // the shortest text that reads back as the same number
  }
}

// Marks an integral float as NumPy does: "2.".
std::string with_point(std::string number) {
  return number.find_first_not_of("-0123456789") == std::string::npos ? number + "." : number;
}

// The shortest text that reads back as the same half.
template <class T> std::string half_text(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  const float number = to_float(value);
  const auto reads_back = [&](const char* from, const char* to) {
    double read = 0;
    std::from_chars(from, to, read);
    if constexpr (std::same_as<T, Float16>) return to_float16(read) == value;
    else return to_bfloat16(read) == value;
  };
  char text[32];
  for (int digits = 1; digits < 6 && number - number == 0; ++digits) {
    char* const end = std::to_chars(text, text + sizeof text, number, std::chars_format::general, digits).ptr;
    if (reads_back(text, end)) return with_point({text, end});
  }
  return with_point({text, std::to_chars(text, text + sizeof text, number).ptr});
}

std::string element_text(const std::byte* data, DType dtype) {
  switch (dtype) {
    case DType::kBool: return *data != std::byte{0} ? "True" : "False";
    case DType::kUInt8: return std::to_string(std::to_integer<int>(*data));
    case DType::kInt32: return number_text<std::int32_t>(data);
    case DType::kInt64: return number_text<std::int64_t>(data);
    case DType::kFloat16: return half_text<Float16>(data);
    case DType::kBFloat16: return half_text<BFloat16>(data);
    case DType::kFloat32: return with_point(number_text<float>(data));
    case DType::kFloat64: return with_point(number_text<double>(data));
  }
  return "";
}

// Nested lists, whose order agrees with x[{i, j}], with numbers in columns.
class Printer {
 public:
  Printer(const Excerpt& excerpt, DType dtype, std::size_t indent)
      : excerpt_(excerpt), strides_(excerpt.shape.dense_strides()), dtype_(dtype), indent_(indent) {
    find_width(0, 0);
  }

  std::string str() {
    if (excerpt_.shape.size() == 0) return "[]";
    print(0, 0);
    return std::move(text_);
  }

 private:
  // Whether element i of the axis stands for the omitted ones.
  bool is_gap(int axis, std::int64_t i) const { return excerpt_.cut && excerpt_.shape[axis] > 2 * kEdge && i == kEdge; }

  std::string element(std::int64_t at) const {
    return element_text(&excerpt_.values[static_cast<std::size_t>(at) * itemsize(dtype_)], dtype_);
  }

  void find_width(int axis, std::int64_t at) {
    if (axis == excerpt_.shape.ndim()) {
      width_ = std::max(width_, element(at).size());
      return;
    }
    for (std::int64_t i = 0; i < excerpt_.shape[axis]; ++i)
      if (!is_gap(axis, i)) find_width(axis + 1, at + i * strides_[static_cast<std::size_t>(axis)]);
  }

  void start_line(int lines, std::size_t indent) {
    text_.append(static_cast<std::size_t>(lines), '\n').append(indent, ' ');
    line_ = text_.size() - indent;
  }

  void print(int axis, std::int64_t at) {
    const int inner = excerpt_.shape.ndim() - axis - 1;  // axes
    const std::size_t indent = indent_ + static_cast<std::size_t>(axis) + 1;
    text_ += '[';
    for (std::int64_t i = 0; i < excerpt_.shape[axis]; ++i) {
      if (i > 0) text_ += ',';
      if (inner > 0 && i > 0) start_line(inner, indent);
      if (inner == 0) {
        if (i > 0 && indent_ + text_.size() - line_ + 2 + width_ > kLineWidth) start_line(1, indent);
        else if (i > 0) text_ += ' ';
      }
      if (is_gap(axis, i)) text_ += "...";
      else if (inner > 0) print(axis + 1, at + i * strides_[static_cast<std::size_t>(axis)]);
      else print_element(at + i * strides_[static_cast<std::size_t>(axis)]);
    }
    text_ += ']';
  }

  void print_element(std::int64_t at) {
    const std::string number = element(at);
    text_.append(width_ - number.size(), ' ') += number;
  }

  const Excerpt& excerpt_;
  const Strides strides_;
  const DType dtype_;
  const std::size_t indent_;
  std::size_t width_ = 0, line_ = 0;  // of an element; start of the line
  std::string text_;
};

constexpr std::string_view kBegin = "NArray(";

std::string values_text(const NArray& x) {
  try {
    const Excerpt excerpt = excerpt_of(x, kThreshold, kEdge);
    return Printer(excerpt, x.dtype(), kBegin.size()).str();
  } catch (const Error& e) {
    return std::string("<") + e.what() + ">";
  }
}

}  // namespace

Excerpt excerpt_of(const NArray& x, std::int64_t threshold, std::int64_t edge) {
  x.wait_for_eval();
  Excerpt excerpt{x.shape(), x.size() > threshold, {}};
  std::vector<std::vector<Piece>> pieces;
  std::int64_t blocks = 1;
  for (int axis = 0; axis < x.ndim(); ++axis) {
    pieces.push_back(pieces_of(x.shape()[axis], excerpt.cut, edge));
    blocks *= static_cast<std::int64_t>(pieces.back().size());
    if (pieces.back().size() > 1) excerpt.shape = excerpt.shape.with(axis, 2 * edge + 1);
  }
  excerpt.values.resize(static_cast<std::size_t>(excerpt.shape.size()) * itemsize(x.dtype()));
  std::vector<Piece> chosen(pieces.size());
  for (std::int64_t block = 0; block < blocks; ++block) {
    std::int64_t rest = block;
    for (std::size_t axis = 0; axis < pieces.size(); ++axis) {
      const auto ways = static_cast<std::int64_t>(pieces[axis].size());
      chosen[axis] = pieces[axis][static_cast<std::size_t>(rest % ways)];
      rest /= ways;
    }
    copy_block(x, chosen, excerpt);
  }
  return excerpt;
}

std::ostream& operator<<(std::ostream& out, const NArray& x) {
  if (!x.has_value()) return out << "NArray()";
  return out << kBegin << values_text(x) << ", shape=" << x.shape().str() << ", dtype=" << name(x.dtype())
             << ", device=" << x.device() << ")";
}

}  // namespace owl
