// Shared by the MNIST programs: devices, the training loop and its tests.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "options.h"
#include "owl/owl.h"

namespace mnist {

using Arrays = std::vector<owl::NArray>;

// A network over a list of parameters that alternates weights and biases.
struct Network {
  std::function<Arrays()> initial_parameters;
  // (params, images, targets) -> {loss, gradient, ...}, summed over the minibatch.
  std::function<Arrays(const Arrays&, const owl::NArray&, const owl::NArray&)> loss_and_gradients;
  std::function<owl::NArray(const Arrays&, const owl::NArray&)> predict;  // (params, images) -> logits, [10, n]
  std::vector<std::int64_t> image_shape;  // of one image as the network takes it: {784} or {28, 28, 1}
};

// The cross entropy of `logits` [10, n] against one-hot `target` [10, n], summed over the minibatch: [1].
owl::NArray cross_entropy(const owl::NArray& logits, const owl::NArray& target);

// Trains and tests `network` as `options` say, and prints the results. Returns the program's exit code.
int run(const Options& options, const Network& network);

}  // namespace mnist
