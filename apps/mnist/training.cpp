#include "training.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <numbers>
#include <numeric>
#include <random>
#include <stdexcept>

#include "interrupt.h"
#include "mnist_data.h"
#include "report.h"

namespace mnist {

using owl::NArray;

namespace {

constexpr std::int64_t kTestBatch = 1000;  // images; their layers' outputs set the memory of a test pass
constexpr std::size_t kReadLag = 8;        // steps until a loss is read, so that reading never waits for the newest step
constexpr double kWarmUp = 0.4;            // of the run, while the learning rate rises

constexpr int kExitFailed = 1;
constexpr int kExitInterrupted = 130;  // what shells report for SIGINT

// The one element of `x`. Waits for it, or until Ctrl-C.
double read(const NArray& x) {
  constexpr double kPatience = 0.05;  // seconds
  do check_interrupt();
  while (!x.wait_for_eval(kPatience));
  return x.item();
}

// ---- One step

// A device's part of a minibatch.
struct Share {
  int device;
  NArray images, targets;
};

// The minibatch, divided among the devices, without those that get no image.
std::vector<Share> share_out(const Digits& digits, Choice chosen, const Network& network,
                             const std::vector<int>& devices) {
  std::vector<Share> shares;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const std::size_t count = chosen.size() / devices.size() + (i < chosen.size() % devices.size());
    if (count == 0) continue;
    const Choice part = chosen.subspan(begin, count);
    begin += count;
    const owl::DeviceScope here(devices[i]);
    shares.push_back({devices[i], images_of(digits, part, network.image_shape), one_hot_of(digits, part)});
  }
  return shares;
}

// The loss and gradients of a minibatch. Every device works on its share. Then the sums are added in a tree: each round
// adds those of the second half of the devices to the first half.
Arrays loss_and_gradients_over(const std::vector<Share>& shares, const Network& network, const Arrays& params) {
  std::vector<Arrays> sums;
  for (const Share& share : shares) {
    const owl::DeviceScope here(share.device);
    sums.push_back(network.loss_and_gradients(params, share.images, share.targets));
  }
  while (sums.size() > 1) {
    const std::size_t half = (sums.size() + 1) / 2;
    for (std::size_t i = half; i < sums.size(); ++i) {
      const owl::DeviceScope here(shares[i - half].device);
      for (std::size_t k = 0; k < sums[i].size(); ++k) sums[i - half][k] += sums[i][k];
    }
    sums.resize(half);
  }
  return sums[0];
}

// One step of gradient descent with momentum. Biases, the odd entries, do not decay.
void update(Arrays& params, Arrays& velocity, const Arrays& gradients, double lr, const Options& options) {
  for (std::size_t k = 0; k < params.size(); ++k) {
    NArray gradient = gradients[k];
    if (k % 2 == 0 && options.weight_decay > 0) gradient += options.weight_decay * params[k];
    velocity[k] = options.momentum * velocity[k] - lr * gradient;
    params[k] += velocity[k];
  }
}

// The learning rate, in units of its peak, at `progress` (0 to 1) of the run: two half cosines. It starts slowly
// because fresh weights do not bear large steps, and ends slowly to converge.
double one_cycle(double progress) {
  if (progress < kWarmUp) return (1 - std::cos(std::numbers::pi * progress / kWarmUp)) / 2;
  return (1 + std::cos(std::numbers::pi * (progress - kWarmUp) / (1 - kWarmUp))) / 2;
}

// ---- Losses, read for the report and the log

// The file for --log.
class Log {
 public:
  explicit Log(const Options& options) {
    if (!options.log) return;
    name_ = "--log " + *options.log;
    file_.reset(std::fopen(options.log->c_str(), "w"));
    if (!file_) refuse_options(options, name_ + ": " + std::strerror(errno));
  }
  void write(std::int64_t step, double loss) {
    if (file_) check(std::fprintf(file_.get(), "%lld %.9g\n", static_cast<long long>(step), loss) >= 0);
  }
  void close() {
    if (file_) check(std::fclose(file_.release()) == 0);
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void check(bool good) const {
    if (!good) throw std::runtime_error(name_ + ": " + std::strerror(errno));
  }

  std::string name_;
  std::unique_ptr<std::FILE, Close> file_;
};

// Reads losses some steps after they were recorded.
class Losses {
 public:
  Losses(Report& report, Log& log) : report_(report), log_(log) {}

  // Takes the mean loss, [1], of a step over so many images.
  void add(NArray loss, std::int64_t images) {
    pending_.push_back({std::move(loss), images});
    read_all_but(kReadLag);
  }

  void read_all_but(std::size_t newest) {
    while (pending_.size() > newest) {
      const auto [loss, images] = std::move(pending_.front());
      pending_.pop_front();
      const double value = read(loss);
      log_.write(++steps_, value);
      if (!std::isfinite(value))
        throw std::runtime_error(std::string("the loss became ") +
                                 (std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf") + " at step " +
                                 std::to_string(steps_) + "; a smaller --lr may help");
      report_.step(value, images);
    }
  }

 private:
  struct Pending {
    NArray loss;
    std::int64_t images;
  };
  Report& report_;
  Log& log_;
  std::deque<Pending> pending_;
  std::int64_t steps_ = 0;
};

// ---- Training and testing

// The fraction of the digits for which the network's first choice is the label.
double accuracy(const Network& network, const Arrays& params, const Digits& digits) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(digits.size()));
  std::iota(order.begin(), order.end(), 0);
  Arrays hits;
  for (std::int64_t start = 0; start < digits.size(); start += kTestBatch) {
    check_interrupt();
    const auto count = std::min(kTestBatch, digits.size() - start);
    const Choice part = Choice(order).subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(count));
    const NArray logits = network.predict(params, images_of(digits, part, network.image_shape));
    hits.push_back((logits.argmax(0) == labels_of(digits, part)).sum());
  }
  double sum = 0;
  for (const NArray& h : hits) sum += read(h);
  return sum / static_cast<double>(digits.size());
}

// In place; written by hand because std::shuffle's order differs between standard libraries.
void shuffle(std::vector<std::int64_t>& order, std::mt19937_64& generator) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator() % i]);
}

// The first of `devices`, which is the current one, has the parameters.
void train(const Options& options, const Network& network, const std::vector<int>& devices, const Data& data,
           Report& report, Log& log) {
  owl::seed(options.seed);
  std::mt19937_64 generator(options.seed);
  Arrays params = network.initial_parameters(), velocity;
  for (const NArray& p : params) velocity.push_back(owl::zeros(p.shape()));
  const std::int64_t images = data.train.size();
  const bool given = std::find(options.given.begin(), options.given.end(), "batch-size") != options.given.end();
  if (given && options.batch_size > images)
    std::fprintf(stderr, "%s: --batch-size %lld is more than the %lld training images: every step takes all of them\n",
                 options.program.c_str(), static_cast<long long>(options.batch_size), static_cast<long long>(images));
  const std::int64_t batch = std::min(options.batch_size, images);
  const double total_steps = static_cast<double>(options.epochs) * static_cast<double>((images + batch - 1) / batch);
  Losses losses(report, log);
  std::vector<std::int64_t> order(static_cast<std::size_t>(images));
  std::iota(order.begin(), order.end(), 0);
  std::int64_t step = 0;

  for (std::int64_t epoch = 1; epoch <= options.epochs && step != options.max_steps; ++epoch) {
    report.begin_epoch(epoch, images);
    shuffle(order, generator);
    for (std::int64_t start = 0; start < images && step != options.max_steps; start += batch) {
      check_interrupt();
      const auto count = std::min(batch, images - start);
      const Choice chosen = Choice(order).subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(count));
      Arrays sums = loss_and_gradients_over(share_out(data.train, chosen, network, devices), network, params);
      for (NArray& sum : sums) sum /= count;
      ++step;
      const double lr = options.lr * one_cycle(static_cast<double>(step) / (total_steps + 1));
      update(params, velocity, {sums.begin() + 1, sums.end()}, lr, options);
      losses.add(sums[0], count);
    }
    losses.read_all_but(0);
    report.end_epoch(accuracy(network, params, data.test));
  }
}

// The ids of the devices that the options choose, the parameters' device first.
std::vector<int> pick_devices(const Options& options) {
  std::vector<int> devices;
  if (options.num_gpus) {
    const std::string asked = "--num-gpus " + std::to_string(*options.num_gpus);
    if (options.device != "auto" && options.device != "gpu")
      refuse_options(options, asked + " takes the first GPUs; it does not go with --device " + options.device);
    if (*options.num_gpus > options.batch_size)
      refuse_options(options, asked + " leaves nothing to share in --batch-size " + std::to_string(options.batch_size));
    for (int i = 0; i < *options.num_gpus; ++i) devices.push_back(owl::create_gpu_device(i));
    return devices;
  }
  if (options.device == "cpu" || (options.device == "auto" && owl::get_gpu_device_count() == 0))
    return {0};  // the CPU device, which always exists
  int index = 0;
  if (const auto colon = options.device.find(':'); colon != std::string::npos)
    std::from_chars(options.device.data() + colon + 1, options.device.data() + options.device.size(), index);
  return {owl::create_gpu_device(index)};
}

}  // namespace

NArray cross_entropy(const NArray& logits, const NArray& target) {
  return -owl::elewise::mult(target, owl::conv::log_softmax(logits)).sum();
}

int run(const Options& options, const Network& network) {
  note_interrupts();
  std::signal(SIGPIPE, SIG_IGN);  // writing to a closed pipe fails with EPIPE instead
  Report report(options);
  Log log(options);
  try {
    try {
      const std::vector<int> devices = pick_devices(options);
      const Data data = load(options.data);
      const owl::DeviceScope here(devices[0]);
      train(options, network, devices, data, report, log);
      log.close();
    } catch (const owl::Interrupted&) {
      report.close("interrupted");
      log.close();
      return kExitInterrupted;
    } catch (const std::exception&) {
      if (report.began()) report.close("stopped by an error");
      throw;
    }
    report.close();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: error: %s\n", options.program.c_str(), error.what());
    return kExitFailed;
  }
  return 0;
}

}  // namespace mnist
