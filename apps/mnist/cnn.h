// The network of mnist_cnn and mnist_cnn_2gpu: two convolutions with max pooling, a fully connected layer to 10.
#pragma once

#include "training.h"

namespace mnist {

// Parses the options, trains and tests; `num_gpus` is the default of --num-gpus. Returns the exit code.
int cnn_main(int argc, char** argv, const char* description, std::optional<std::int64_t> num_gpus = {});

}  // namespace mnist
