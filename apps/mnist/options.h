// The options that the MNIST programs share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace mnist {

// Set the program's defaults, then call parse_options.
struct Options {
  std::optional<std::string> data = {};
  std::int64_t epochs = 1, batch_size = 1;
  double lr = 0.1, momentum = 0, weight_decay = 0;
  std::optional<std::int64_t> hidden = {};  // units of the hidden layer; no such option where it has no default
  std::string device = "auto";              // cpu, gpu, gpu:N or auto
  std::optional<std::int64_t> num_gpus = {};
  std::uint64_t seed = 1;
  std::optional<std::int64_t> max_steps = {};
  std::optional<std::string> log = {};
  bool quiet = false;

  std::string program = {};  // the name under which it was called
};

// Replaces in `options` what the command line says. --help ends the process with exit code 0, a wrong option with 2.
void parse_options(int argc, char** argv, const char* description, Options& options);

// Ends the process as a wrong option does: the usage and the message on stderr, exit code 2.
[[noreturn]] void refuse_options(const Options& options, const std::string& message);

}  // namespace mnist
