#include "options.h"

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace mnist {

namespace {

constexpr int kExitFailed = 1, kExitWrongOptions = 2;

constexpr const char* kUsage = "[--help] [options]";

// An option: its text in --help and the function that takes its value. Without a placeholder it has no value.
struct Option {
  const char* name;
  const char* placeholder;
  std::string help;
  std::function<void(const char* text)> set;
};

// The expected value of an option; becomes the message that ends the program.
struct WrongValue {
  std::string expected;
};

template <class T> std::function<void(const char*)> integer(T& value, int least) {
  return [&value, least](const char* text) {
    T parsed{};
    const char* const digits = text + (*text == '+');
    const char* const end = text + std::strlen(text);
    const auto [stop, error] = std::from_chars(digits, end, parsed);
    const bool negative = *digits == '-';
    if (error == std::errc::result_out_of_range && stop == end && !negative)
      throw WrongValue{"an integer of at most " + std::to_string(std::numeric_limits<T>::max())};
    if (error != std::errc() || stop != end || (negative && digits != text) || parsed < static_cast<T>(least))
      throw WrongValue{"an integer of at least " + std::to_string(least)};
    value = parsed;
  };
}

std::function<void(const char*)> integer(std::optional<std::int64_t>& value, int least) {
  return [&value, least](const char* text) {
    std::int64_t parsed = 0;
    integer(parsed, least)(text);
    value = parsed;
  };
}

std::function<void(const char*)> number(double& value, const char* limits, std::function<bool(double)> allowed) {
  return [&value, limits, allowed = std::move(allowed)](const char* text) {
    // strtod also accepts blanks, hexadecimal digits and names.
    const bool decimal = *text != '\0' && text[std::strspn(text, "+-.0123456789eE")] == '\0';
    char* end = nullptr;
    const double parsed = decimal ? std::strtod(text, &end) : 0;
    if (!decimal || end == text || *end != '\0' || !std::isfinite(parsed) || !allowed(parsed))
      throw WrongValue{std::string("a number ") + limits};
    value = parsed;
  };
}

std::function<void(const char*)> device_name(std::string& value) {
  return [&value](const char* text) {
    const std::string_view name(text);
    bool good = name == "auto" || name == "cpu" || name == "gpu";
    if (name.starts_with("gpu:")) {
      int index = -1;
      const auto [stop, error] = std::from_chars(name.data() + 4, name.data() + name.size(), index);
      good = error == std::errc() && stop == name.data() + name.size() && name[4] != '-';
    }
    if (!good) throw WrongValue{"cpu, gpu, gpu:N or auto"};
    value = name;
  };
}

template <class T> std::string default_of(const T& value) {
  if constexpr (std::is_same_v<T, double>) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return std::string("(default: ") + text + ")";
  } else {
    return "(default: " + std::to_string(value) + ")";
  }
}

std::vector<Option> options_of(Options& o) {
  const auto text = [](std::optional<std::string>& value) { return [&value](const char* t) { value = t; }; };
  std::vector<Option> all = {
      {"help", nullptr, "show this help and exit", {}},
      {"data", "PATH", "folder with MNIST's four IDX files, each plain or .gz", text(o.data)},
      {"epochs", "N", default_of(o.epochs), integer(o.epochs, 1)},
      {"batch-size", "N", "images per step " + default_of(o.batch_size), integer(o.batch_size, 1)},
      {"lr", "X", "peak learning rate, reached after 40 % of the run, 0 at its ends " + default_of(o.lr),
       number(o.lr, "above 0", [](double v) { return v > 0; })},
      {"momentum", "X", default_of(o.momentum),
       number(o.momentum, "at least 0 and below 1", [](double v) { return v >= 0 && v < 1; })},
      {"weight-decay", "X", "L2 penalty on the weights, not the biases " + default_of(o.weight_decay),
       number(o.weight_decay, "at least 0", [](double v) { return v >= 0; })},
      {"device", "D", "cpu, gpu, gpu:N or auto: the first GPU where there is one, else the CPU (default: auto)",
       device_name(o.device)},
      {"num-gpus", "N",
       "share every minibatch among the first N GPUs" + (o.num_gpus ? " " + default_of(*o.num_gpus) : ""),
       integer(o.num_gpus, 1)},
      {"seed", "N", "of weights and shuffling " + default_of(o.seed), integer(o.seed, 0)},
      {"max-steps", "N", "stop after N steps in all", integer(o.max_steps, 1)},
      {"log", "FILE", "write a line for each step: its number, a space, its mean loss", text(o.log)},
      {"quiet", nullptr, "print the closing table only", [&o](const char*) { o.quiet = true; }},
  };
  if (o.hidden)
    all.push_back({"hidden", "N", "units of the hidden layer " + default_of(*o.hidden), integer(o.hidden, 1)});
  return all;
}

[[noreturn]] void print_help(const Options& options, const char* description, const std::vector<Option>& all) {
  std::printf("usage: %s %s\n\n%s\n\noptions:\n", options.program.c_str(), kUsage, description);
  for (const Option& option : all) {
    std::string left = std::string(std::strcmp(option.name, "help") == 0 ? "-h, " : "") + "--" + option.name;
    if (option.placeholder) left += std::string(" ") + option.placeholder;
    std::printf("  %-21s %s\n", left.c_str(), option.help.c_str());
  }
  std::printf(
      "\nWithout --data: the folder in OWL_DATA, the working folder, the user's cache (`python -m owl.data fetch mnist`\n"
      "downloads into it); otherwise synthetic digits are drawn. Ctrl-C ends the run with the table of what was\n"
      "reached (exit code 130).\n");
  try {
    flush_output();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: error: %s\n", options.program.c_str(), error.what());
    std::exit(kExitFailed);
  }
  std::exit(0);
}

// The option of this name; if there is none, those whose names begin with it.
std::vector<const Option*> named(std::string_view name, const std::vector<Option>& all) {
  std::vector<const Option*> found;
  for (const Option& option : all) {
    if (option.name == name) return {&option};
    if (std::string_view(option.name).starts_with(name)) found.push_back(&option);
  }
  return found;
}

struct Found {
  const Option* option;
  const char* value;  // null if it takes none
};

// The option that the argument at `i` names; its value may be the next argument, which is then skipped.
Found find(int argc, char** argv, int& i, const Options& options, const std::vector<Option>& all) {
  std::string argument = std::strcmp(argv[i], "-h") == 0 ? "--help" : argv[i];
  std::vector<const Option*> matches;
  const auto equals = argument.find('=');
  if (argument == "--") {  // no options follow
    argument = argv[i + 1];
  } else if (argument.starts_with("--")) {
    matches = named(std::string_view(argument).substr(0, equals).substr(2), all);
  }
  if (matches.empty()) refuse_options(options, "unrecognized arguments: " + argument);
  if (matches.size() > 1) {
    std::string names;
    for (const Option* option : matches) names += (names.empty() ? "--" : ", --") + std::string(option->name);
    refuse_options(options, "ambiguous option: " + argument + " could match " + names);
  }
  const Option& option = *matches[0];
  if (!option.placeholder) {
    if (equals != std::string::npos) refuse_options(options, std::string("argument --") + option.name + ": takes no value");
    return {&option, nullptr};
  }
  if (equals != std::string::npos) return {&option, argv[i] + equals + 1};
  if (++i == argc) refuse_options(options, std::string("argument --") + option.name + ": expected one argument");
  return {&option, argv[i]};
}

}  // namespace

void flush_output() {
  errno = 0;
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw std::runtime_error(std::string("standard output: ") + std::strerror(errno ? errno : EIO));
}

void refuse_options(const Options& options, const std::string& message) {
  std::fprintf(stderr, "usage: %s %s\n%s: error: %s\n", options.program.c_str(), kUsage, options.program.c_str(),
               message.c_str());
  std::exit(kExitWrongOptions);
}

void parse_options(int argc, char** argv, const char* description, Options& options) {
  options.program = std::filesystem::path(argc > 0 ? argv[0] : "mnist").filename().string();
  const std::vector<Option> all = options_of(options);
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--") == 0 && i + 1 == argc) break;
    const auto [option, value] = find(argc, argv, i, options, all);
    if (!option->set) print_help(options, description, all);
    try {
      option->set(value);
    } catch (const WrongValue& wrong) {
      refuse_options(options,
                     std::string("argument --") + option->name + ": expected " + wrong.expected + ", not '" + value + "'");
    }
    options.given.emplace_back(option->name);
  }
}

}  // namespace mnist
