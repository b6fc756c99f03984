"""Minerva's MNIST walkthrough, second part: a network of two convolutions and a fully connected layer.

Run it in the folder of mnist_all.mat, or set OWL_DATA to the folder of MNIST. To train, use mnist_cnn.py; this script
shows only the array code. Images are [width, height, channels, batch], one-hot labels [10, batch].
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

conv1 = conv.Convolver(0, 0, 1, 1)
conv2 = conv.Convolver(2, 2, 1, 1)
pool1 = conv.Pooler(2, 2, 2, 2, op=conv.pool_op.max)
pool2 = conv.Pooler(3, 3, 3, 3, op=conv.pool_op.max)

w1 = owl.randn([5, 5, 1, 16], 0.0, 0.1)
w2 = owl.randn([5, 5, 16, 32], 0.0, 0.1)
w3 = owl.randn([10, 512], 0.0, 0.1)
b1 = owl.zeros([16])
b2 = owl.zeros([32])
b3 = owl.zeros([10, 1])

for epoch in range(max_epoch):
    print("---Start epoch #%d" % epoch)
    for count, (samples, labels) in enumerate(train_data, 1):
        num_samples = samples.shape[0]
        a0 = owl.from_numpy(samples).reshape([28, 28, 1, num_samples])
        target = owl.from_numpy(labels)

        # Feed forward: 28x28 -> 24x24x16 -> 12x12x16 -> 12x12x32 -> 4x4x32 -> 10.
        a1 = ele.relu(conv1.ff(a0, w1, b1))
        a2 = pool1.ff(a1)
        a3 = ele.relu(conv2.ff(a2, w2, b2))
        a4 = pool2.ff(a3)
        a4_flat = a4.reshape([512, num_samples])
        out = conv.softmax(w3 * a4_flat + b3, conv.soft_op.instance)

        # Back propagation.
        s5 = out - target
        s4 = (w3.trans() * s5).reshape(a4.shape)
        s3 = ele.relu_back(pool2.bp(s4, a4, a3), a3)
        s2 = conv2.bp(s3, a2, w2)
        s1 = ele.relu_back(pool1.bp(s2, a2, a1), a1)

        # Gradients, summed over the minibatch, and update.
        w3 -= lr * (s5 * a4_flat.trans())
        b3 -= lr * s5.sum(1)
        w2 -= lr * conv2.weight_grad(s3, a2, w2)
        b2 -= lr * conv2.bias_grad(s3)
        w1 -= lr * conv1.weight_grad(s1, a0, w1)
        b1 -= lr * conv1.bias_grad(s1)

        if count % 20 == 0:
            pred = out.max_index(0)
            truth = target.max_index(0)
            accuracy = float((pred - truth).count_zero()) / 256
            print("Minibatch %d, training accuracy: %f" % (count, accuracy))

owl.wait_for_all()
