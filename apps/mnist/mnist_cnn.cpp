// Trains the convolutional network of cnn.cpp on one device.
#include "cnn.h"

int main(int argc, char** argv) {
  return mnist::cnn_main(argc, argv,
                         "Train a convolutional network (two convolutions with max pooling, a full connection to 10) "
                         "on MNIST with owl.");
}
