"""Minerva's MNIST walkthrough, first part: a multi-layer perceptron, 784 inputs, 256 hidden units, 10 classes.

Run it in the folder of mnist_all.mat, or set OWL_DATA to the folder of MNIST. To train, use mnist_mlp.py; this script
shows only the array code. Minibatches are columns: [784, 256] samples, [10, 256] one-hot labels.
"""

import sys

import mnist_io
import owl
import owl.conv as conv
import owl.elewise as ele

owl.initialize(sys.argv)
cpu = owl.create_cpu_device()
owl.set_device(cpu)

max_epoch = 10
lr = 0.01 / 256
(train_data, test_data) = mnist_io.load_mb_from_mat("mnist_all.mat", 256)

w1 = owl.randn([256, 784], 0.0, 0.01)
w2 = owl.randn([10, 256], 0.0, 0.01)
b1 = owl.zeros([256, 1])
b2 = owl.zeros([10, 1])

for epoch in range(max_epoch):
    print("---Start epoch #%d" % epoch)
    for count, (samples, labels) in enumerate(train_data, 1):
        a1 = owl.from_numpy(samples)
        target = owl.from_numpy(labels)

        # Feed forward.
        a2 = ele.relu(w1 * a1 + b1)
        a3 = conv.softmax(w2 * a2 + b2)

        # Back propagation.
        s3 = a3 - target
        s2 = ele.relu_back(w2.trans() * s3, a2)

        # Gradients, summed over the minibatch.
        gw1 = s2 * a1.trans()
        gb1 = s2.sum(1)
        gw2 = s3 * a2.trans()
        gb2 = s3.sum(1)

        # Update.
        w1 -= lr * gw1
        w2 -= lr * gw2
        b1 -= lr * gb1
        b2 -= lr * gb2

        if count % 20 == 0:
            pred = a3.max_index(0)
            truth = target.max_index(0)
            accuracy = float((pred - truth).count_zero()) / 256
            print("Minibatch %d, training accuracy: %f" % (count, accuracy))

owl.wait_for_all()
