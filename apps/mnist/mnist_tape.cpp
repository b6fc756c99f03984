// Trains a multi-layer perceptron with two hidden layers of ReLU on MNIST with owl. No gradient is written by hand: a
// tape notes the operations of the forward pass and derives them. mnist_mlp.cpp spells them out.
#include <cmath>

#include "training.h"

using mnist::Arrays;
using owl::NArray;

namespace {

// {w1, b1, w2, b2, w3, b3}; the deviations keep the layers' outputs near 1 at the start (He et al.).
Arrays initial_parameters(std::int64_t hidden) {
  const std::vector<std::int64_t> units = {784, hidden, hidden, 10};
  Arrays params;
  for (std::size_t layer = 1; layer < units.size(); ++layer) {
    const std::int64_t n_in = units[layer - 1], n_out = units[layer];
    params.push_back(owl::randn({n_out, n_in}, 0.0, std::sqrt(2.0 / static_cast<double>(n_in))));
    params.push_back(owl::zeros({n_out, 1}));
  }
  return params;
}

// The logits, [10, n], of images [784, n].
NArray predict(const Arrays& params, const NArray& images) {
  NArray x = images;
  for (std::size_t k = 0; k < params.size(); k += 2) {
    if (k > 0) x = owl::relu(x);
    x = params[k] * x + params[k + 1];
  }
  return x;
}

// The loss, then its gradients in the order of `params`.
Arrays loss_and_gradients(const Arrays& params, const NArray& images, const NArray& target) {
  owl::Tape tape;
  const NArray loss = mnist::cross_entropy(predict(params, images), target);
  Arrays results = tape.gradient(loss, params);
  results.insert(results.begin(), loss);
  return results;
}

}  // namespace

int main(int argc, char** argv) {
  mnist::Options options{
      .epochs = 10, .batch_size = 256, .lr = 0.1, .momentum = 0.9, .weight_decay = 1e-4, .hidden = 256};
  mnist::parse_options(argc, argv,
                       "Train a multi-layer perceptron (784 inputs, two hidden layers of ReLU, 10 classes) on MNIST "
                       "with owl, by gradients that a tape derives.",
                       options);
  const mnist::Network network{
      .initial_parameters = [hidden = *options.hidden] { return initial_parameters(hidden); },
      .loss_and_gradients = loss_and_gradients,
      .predict = predict,
      .image_shape = {784},
  };
  return mnist::run(options, network);
}
