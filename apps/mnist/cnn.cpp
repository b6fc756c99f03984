// mnist_cnn.py in C++. Everything here is lazy: the functions record operations, which owl's devices run while the
// program goes on.
#include "cnn.h"

#include <cmath>

namespace mnist {

namespace conv = owl::conv;
namespace ele = owl::elewise;
using owl::NArray;

namespace {

const conv::Convolver conv1{.pad_h = 0, .pad_w = 0, .stride_v = 1, .stride_h = 1};
const conv::Convolver conv2{.pad_h = 2, .pad_w = 2, .stride_v = 1, .stride_h = 1};
const conv::Pooler pool1{.h = 2, .w = 2, .stride_v = 2, .stride_h = 2, .op = conv::PoolOp::kMax};
const conv::Pooler pool2{.h = 3, .w = 3, .stride_v = 3, .stride_h = 3, .op = conv::PoolOp::kMax};

// {w1, b1, w2, b2, w3, b3}; the deviations keep the layers' outputs near 1 at the start (He et al.).
Arrays initial_parameters() {
  return {
      owl::randn({5, 5, 1, 16}, 0.0, std::sqrt(2.0 / (5 * 5 * 1))),
      owl::zeros({16}),
      owl::randn({5, 5, 16, 32}, 0.0, std::sqrt(2.0 / (5 * 5 * 16))),
      owl::zeros({32}),
      owl::randn({10, 512}, 0.0, std::sqrt(1.0 / 512)),
      owl::zeros({10, 1}),
  };
}

struct Layers {
  NArray a1;      // [24, 24, 16, n]
  NArray p1;      // [12, 12, 16, n]
  NArray a2;      // [12, 12, 32, n]
  NArray p2;      // [4, 4, 32, n]
  NArray logits;  // [10, n]
};

// `x` is [28, 28, 1, n].
Layers forward(const Arrays& params, const NArray& x) {
  const NArray &w1 = params[0], &b1 = params[1], &w2 = params[2], &b2 = params[3], &w3 = params[4], &b3 = params[5];
  const NArray a1 = ele::relu(conv1.ff(x, w1, b1));
  const NArray p1 = pool1.ff(a1);
  const NArray a2 = ele::relu(conv2.ff(p1, w2, b2));
  const NArray p2 = pool2.ff(a2);
  return {a1, p1, a2, p2, w3 * p2.reshape({512, -1}) + b3};
}

// The loss, then the gradients of the cross entropy, summed over the minibatch, in the order of `params`.
Arrays loss_and_gradients(const Arrays& params, const NArray& x, const NArray& target) {
  const auto [a1, p1, a2, p2, logits] = forward(params, x);
  const NArray &w1 = params[0], &w2 = params[2], &w3 = params[4];
  const NArray err3 = conv::softmax(logits) - target;
  const NArray err_p2 = (w3.trans() * err3).reshape({p2.shape().begin(), p2.shape().end()});
  const NArray err2 = ele::relu_back(pool2.bp(err_p2, p2, a2), a2);
  const NArray err_p1 = conv2.bp(err2, p1, w2);
  const NArray err1 = ele::relu_back(pool1.bp(err_p1, p1, a1), a1);
  return {
      cross_entropy(logits, target),
      conv1.weight_grad(err1, x, w1), conv1.bias_grad(err1),
      conv2.weight_grad(err2, p1, w2), conv2.bias_grad(err2),
      err3 * p2.reshape({512, -1}).trans(), err3.sum(1),
  };
}

}  // namespace

int cnn_main(int argc, char** argv, const char* description, std::optional<std::int64_t> num_gpus) {
  Options options{
      .epochs = 3, .batch_size = 128, .lr = 0.05, .momentum = 0.9, .weight_decay = 1e-4, .num_gpus = num_gpus};
  parse_options(argc, argv, description, options);
  const Network network{
      .initial_parameters = initial_parameters,
      .loss_and_gradients = loss_and_gradients,
      .predict = [](const Arrays& params, const NArray& x) { return forward(params, x).logits; },
      .image_shape = {28, 28, 1},
  };
  return run(options, network);
}

}  // namespace mnist
