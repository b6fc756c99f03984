// Trains a multi-layer perceptron (784 inputs, one hidden layer of ReLU, 10 classes) on MNIST with owl: mnist_mlp.py in
// C++. Everything here is lazy: the functions record operations, which owl's devices run while the program goes on.
#include <cmath>

#include "training.h"

namespace conv = owl::conv;
namespace ele = owl::elewise;
using mnist::Arrays;
using owl::NArray;

namespace {

// {w1, b1, w2, b2}; the deviations keep the layers' outputs near 1 at the start (He et al.).
Arrays initial_parameters(std::int64_t hidden) {
  return {
      owl::randn({hidden, 784}, 0.0, std::sqrt(2.0 / 784)),
      owl::zeros({hidden, 1}),
      owl::randn({10, hidden}, 0.0, std::sqrt(1.0 / static_cast<double>(hidden))),
      owl::zeros({10, 1}),
  };
}

struct Layers {
  NArray h, logits;  // [hidden, n] and [10, n]
};

// `x` is [784, n].
Layers forward(const Arrays& params, const NArray& x) {
  const NArray &w1 = params[0], &b1 = params[1], &w2 = params[2], &b2 = params[3];
  const NArray h = ele::relu(w1 * x + b1);
  return {h, w2 * h + b2};
}

// The loss, then the gradients of the cross entropy, summed over the minibatch, in the order of `params`.
Arrays loss_and_gradients(const Arrays& params, const NArray& x, const NArray& target) {
  const auto [h, logits] = forward(params, x);
  const NArray& w2 = params[2];
  const NArray err2 = conv::softmax(logits) - target;
  const NArray err1 = ele::relu_back(w2.trans() * err2, h);
  return {
      mnist::cross_entropy(logits, target),
      err1 * x.trans(), err1.sum(1),
      err2 * h.trans(), err2.sum(1),
  };
}

}  // namespace

int main(int argc, char** argv) {
  mnist::Options options{
      .epochs = 10, .batch_size = 256, .lr = 0.1, .momentum = 0.9, .weight_decay = 1e-4, .hidden = 256};
  mnist::parse_options(
      argc, argv,
      "Train a multi-layer perceptron (784 inputs, one hidden layer of ReLU, 10 classes) on MNIST with owl.",
      options);
  const mnist::Network network{
      .initial_parameters = [hidden = *options.hidden] { return initial_parameters(hidden); },
      .loss_and_gradients = loss_and_gradients,
      .predict = [](const Arrays& params, const NArray& x) { return forward(params, x).logits; },
      .image_shape = {784},
  };
  return mnist::run(options, network);
}
