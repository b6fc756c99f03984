#include "graph/params.h"

#include <charconv>
#include <cmath>
#include <type_traits>

namespace owl {

namespace {

template <class T> std::string digits(T value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

struct ValueText {
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(std::int64_t value) const { return digits(value); }
  std::string operator()(double value) const { return digits(value); }
  std::string operator()(std::string_view value) const { return std::string(value); }
  std::string operator()(DType value) const { return std::string(name(value)); }
  std::string operator()(const void* value) const { return digits(reinterpret_cast<std::uintptr_t>(value)); }
  std::string operator()(const std::vector<std::int64_t>& values) const {
    std::string text;
    for (const auto value : values) text += (text.empty() ? "" : ", ") + digits(value);
    return "[" + text + "]";
  }
};

std::string written(const Params* params, bool with_addresses) {
  std::string text;
  if (!params) return text;
  params->visit([&](const char* name, const ParamValue& value) {
    if (std::holds_alternative<const void*>(value) && !with_addresses) return;
    text += (text.empty() ? "" : ", ") + std::string(name) + "=" + std::visit(ValueText(), value);
  });
  return text;
}

}  // namespace

std::string text_of(const Params* params) { return written(params, false); }
std::string key_of(const Params* params) { return written(params, true); }

bool is_finite(const Params* params) {
  bool finite = true;
  if (params)
    params->visit([&finite](const char*, const ParamValue& value) {
      if (const double* number = std::get_if<double>(&value)) finite &= std::isfinite(*number);
    });
  return finite;
}

}  // namespace owl
