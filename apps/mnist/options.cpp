#include "options.h"

#include <getopt.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <string_view>
#include <vector>

namespace mnist {

namespace {

constexpr int kExitWrongOptions = 2;

constexpr const char* kUsage = "[--help] [options]";

// An option: what --help says of it and what is done with its value. Without a placeholder it takes none.
struct Option {
  const char* name;
  const char* placeholder;
  std::string help;
  std::function<void(const char* text)> set;
};

// What an option's value should have been; becomes the message that ends the program.
struct WrongValue {
  std::string expected;
};

template <class T> std::function<void(const char*)> integer(T& value, int least) {
  return [&value, least](const char* text) {
    T parsed{};
    const char* end = text + std::strlen(text);
    const auto [stop, error] = std::from_chars(text, end, parsed);
    if (error == std::errc::result_out_of_range && *text != '-')
      throw WrongValue{"an integer of at most " + std::to_string(std::numeric_limits<T>::max())};
    if (error != std::errc() || stop != end || parsed < static_cast<T>(least))
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
    char* end = nullptr;
    const double parsed = std::strtod(text, &end);
    if (end == text || *end != '\0' || !std::isfinite(parsed) || !allowed(parsed))
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
      good = error == std::errc() && stop == name.data() + name.size() && index >= 0 && name[4] != '-';
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

void print_help(const Options& options, const char* description, const std::vector<Option>& all) {
  std::printf("usage: %s %s\n\n%s\n\noptions:\n  -h, --help            show this help and exit\n",
              options.program.c_str(), kUsage, description);
  for (const Option& option : all) {
    const std::string left = std::string("--") + option.name + (option.placeholder ? " " : "") +
                             (option.placeholder ? option.placeholder : "");
    std::printf("  %-21s %s\n", left.c_str(), option.help.c_str());
  }
  std::printf(
      "\nWithout --data: the folder in OWL_DATA, the working folder, the user's cache (`python -m owl.data fetch\n"
      "mnist` downloads into it); otherwise synthetic digits are drawn. Ctrl-C ends the run with the table of what was\n"
      "reached (exit code 130).\n");
}

// Why getopt_long refused this argument.
std::string describe_refused(const std::string& argument, const std::vector<Option>& all) {
  const std::string name = argument.substr(std::min<std::size_t>(2, argument.size()));
  const std::string key = name.substr(0, name.find('='));
  std::string candidates;
  int count = 0;
  for (const Option& option : all)
    if (argument.starts_with("--") && std::string_view(option.name).starts_with(key)) {
      candidates += (count++ ? ", --" : "--") + std::string(option.name);
    }
  if (count > 1) return "ambiguous option: " + argument + " could match " + candidates;
  if (count == 1) return "argument " + candidates + ": takes no value";
  return "unrecognized arguments: " + argument;
}

}  // namespace

void refuse_options(const Options& options, const std::string& message) {
  std::fprintf(stderr, "usage: %s %s\n%s: error: %s\n", options.program.c_str(), kUsage, options.program.c_str(),
               message.c_str());
  std::exit(kExitWrongOptions);
}

void parse_options(int argc, char** argv, const char* description, Options& options) {
  options.program = std::filesystem::path(argc > 0 ? argv[0] : "mnist").filename().string();
  const std::vector<Option> all = options_of(options);
  std::vector<option> table;  // in the order of `all`
  // Each with a value of its own: of options with the same value getopt_long takes an ambiguous prefix for the first.
  constexpr int kHelp = 1000, kFirst = kHelp + 1;  // beyond characters
  for (const Option& o : all) {
    const int value = kFirst + static_cast<int>(table.size());
    table.push_back({o.name, o.placeholder ? required_argument : no_argument, nullptr, value});
  }
  table.push_back({"help", no_argument, nullptr, kHelp});
  table.push_back({});

  opterr = 0;
  for (;;) {
    const int at = std::max(optind, 1);
    int index = -1;
    const int found = getopt_long(argc, argv, "+:h", table.data(), &index);
    if (found == -1) break;
    if (found == 'h' || found == kHelp) {
      print_help(options, description, all);
      std::exit(0);
    }
    if (found == ':') refuse_options(options, std::string("argument ") + argv[at] + ": expected one argument");
    if (found == '?') refuse_options(options, describe_refused(argv[at], all));
    const Option& option = all[static_cast<std::size_t>(index)];
    try {
      option.set(optarg);
    } catch (const WrongValue& wrong) {
      refuse_options(options, std::string("argument --") + option.name + ": expected " + wrong.expected + ", not '" +
                                  optarg + "'");
    }
  }
  if (optind < argc) refuse_options(options, std::string("unrecognized arguments: ") + argv[optind]);
}

}  // namespace mnist
