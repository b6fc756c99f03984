// Trains the convolutional network of cnn.cpp on two GPUs: each works on half of every minibatch, and the first adds
// their gradients. OWL_SIMULATED_GPUS=2 runs it without a GPU.
#include "cnn.h"

int main(int argc, char** argv) {
  return mnist::cnn_main(argc, argv,
                         "Train a convolutional network (two convolutions with max pooling, a full connection to 10) "
                         "on MNIST with owl, every minibatch shared between two GPUs. OWL_SIMULATED_GPUS=2 runs it "
                         "anywhere.",
                         2);
}
