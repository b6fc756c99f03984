// Seconds for the five matrix products of the walkthrough's MLP, 784-H-10, for each minibatch of 256 of an epoch, in a
// bare loop: products_floor [--hidden 256] [--images 60000] [--epochs 4]
//
// oneDNN multiplies plain matrices in two ways: by its sgemm, which owl calls, and by its matmul primitive. Each
// product uses the faster one. Every minibatch has its own memory, as in an epoch; the figure `in_cache` repeats one
// minibatch, a time that no epoch can reach.
#include <memory>

#include "floor.h"

namespace {

constexpr int kBatch = 256, kInputs = 784, kClasses = 10;
constexpr int kTries = 20;

// c[m, n] = a[m, k] b[k, n], row-major. A transposed operand lies in memory as its transpose.
struct Product {
  std::string name;
  int m, n, k;
  char a_transposed, b_transposed;
  float *a, *b, *c;
};

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

void sgemm(const Product& p) {
  const auto status = dnnl_sgemm(p.a_transposed, p.b_transposed, p.m, p.n, p.k, 1.0f, p.a,
                                 p.a_transposed == 'T' ? p.m : p.k, p.b, p.b_transposed == 'T' ? p.k : p.n, 0.0f, p.c,
                                 p.n);
  if (status != dnnl_success) throw std::runtime_error("oneDNN does not multiply: " + p.name);
}

class Matmul {
 public:
  explicit Matmul(const Product& p)
      : stream_(engine()),
        a_(desc(p.m, p.k, p.a_transposed), engine(), p.a),
        b_(desc(p.k, p.n, p.b_transposed), engine(), p.b),
        c_(desc(p.m, p.n, 'N'), engine(), p.c),
        matmul_(dnnl::matmul::primitive_desc(engine(), a_.get_desc(), b_.get_desc(), c_.get_desc())) {}

  void run(const Product& p) {
    a_.set_data_handle(p.a);
    matmul_.execute(stream_, {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, b_}, {DNNL_ARG_DST, c_}});
    stream_.wait();
  }

 private:
  static dnnl::memory::desc desc(int rows, int columns, char transposed) {
    using Tag = dnnl::memory::format_tag;
    return {{rows, columns}, dnnl::memory::data_type::f32, transposed == 'T' ? Tag::ba : Tag::ab};
  }

  dnnl::stream stream_;
  dnnl::memory a_, b_, c_;
  dnnl::matmul matmul_;
};

}  // namespace

int main(int argc, char** argv) {
  const int hidden = floors::option(argc, argv, "--hidden", 256);
  const int steps = std::max(1, floors::option(argc, argv, "--images", 60000) / kBatch);
  const int epochs = floors::option(argc, argv, "--epochs", 4);
  const int threads = floors::use_threads_of_owl();

  std::vector<std::vector<float>> memory;
  const auto matrix = [&](std::size_t count) {
    memory.emplace_back(count);
    floors::fill(memory.back().data(), count);
    return memory.back().data();
  };
  const auto size = [](std::size_t rows, std::size_t columns) { return rows * columns; };
  float* const images = matrix(size(steps * kBatch, kInputs));
  float* const w1 = matrix(size(kInputs, hidden));
  float* const w2 = matrix(size(hidden, kClasses));
  float* const hidden_values = matrix(size(kBatch, hidden));
  float* const errors = matrix(size(kBatch, kClasses));
  float* const hidden_errors = matrix(size(kBatch, hidden));

  std::vector<Product> products{
      {"forward", kBatch, hidden, kInputs, 'N', 'N', images, w1, hidden_values},
      {"output", kBatch, kClasses, hidden, 'N', 'N', hidden_values, w2, errors},
      {"back", kBatch, hidden, kClasses, 'N', 'T', errors, w2, hidden_errors},
      {"gradient", kInputs, hidden, kBatch, 'T', 'N', images, hidden_errors, matrix(size(kInputs, hidden))},
      {"output_gradient", hidden, kClasses, kBatch, 'T', 'N', hidden_values, errors, matrix(size(hidden, kClasses))},
  };
  std::vector<std::unique_ptr<Matmul>> quicker;  // null if sgemm is
  floors::Figures figures{{"threads", threads}};
  for (const auto& p : products) {
    auto matmul = std::make_unique<Matmul>(p);
    const double by_sgemm = floors::best(kTries, [&] { sgemm(p); });
    const double by_matmul = floors::best(kTries, [&] { matmul->run(p); });
    figures.emplace_back(p.name + "_us", 1e6 * std::min(by_sgemm, by_matmul));
    quicker.push_back(by_matmul < by_sgemm ? std::move(matmul) : nullptr);
  }
  const auto epoch = [&](std::size_t stride) {
    for (int s = 0; s < steps; ++s) {
      products[0].a = products[3].a = images + static_cast<std::size_t>(s) * stride;
      for (std::size_t i = 0; i < products.size(); ++i) {
        if (quicker[i]) quicker[i]->run(products[i]);
        else sgemm(products[i]);
      }
    }
  };
  figures.emplace_back("in_cache", floors::best(epochs, [&] { epoch(0); }));
  floors::report("mlp-products-h" + std::to_string(hidden), floors::best(epochs, [&] { epoch(size(kBatch, kInputs)); }),
                 figures);
}
