#include "digits/digits.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <initializer_list>
#include <span>
#include <system_error>
#include <thread>
#include <vector>

namespace owl {
namespace {

constexpr int kPixels = kDigitSide * kDigitSide;

struct Point {
  float x, y;
};

// ---- Randomness: a counter-based generator, keyed by (seed, image), so that images can be drawn in any order. ----

std::uint64_t mix(std::uint64_t z) {  // SplitMix64's finaliser
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t image) : key_(mix(mix(seed + kStep) ^ (image * kStep))) {}

  std::uint64_t bits() { return mix(key_ + ++counter_ * kStep); }
  float uniform(float low, float high) { return low + (high - low) * float(bits() >> 40) * 0x1p-24f; }
  int below(int n) { return int(((bits() >> 32) * std::uint64_t(n)) >> 32); }

  // Nearly normal, mean 0 and deviation 1, within +-3.5: a sum of four 16-bit uniforms. It calls no library function,
  // so that the same seed draws the same digits with every C library.
  float normal() {
    const std::uint64_t b = bits();
    const int sum = int(b & 0xffff) + int(b >> 16 & 0xffff) + int(b >> 32 & 0xffff) + int(b >> 48);
    return float(sum - 2 * 0xffff) * (1.7320508f / 65536.0f);
  }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15u;
  std::uint64_t key_;
  std::uint64_t counter_ = 0;
};

// ---- Stroke descriptions: in a box of 1 by 1, x to the right, y downwards. ----

struct Stroke {
  bool curved;  // a smooth curve through the points, or straight lines between them
  std::vector<Point> points;
};

struct Glyph {
  int digit;
  std::vector<Stroke> strokes;
};

constexpr bool kCurve = true;
constexpr bool kLines = false;

// The glyphs of each digit, all equally likely.
const std::vector<Glyph>& glyphs() {
  static const std::vector<Glyph> all = {
      {0, {{kCurve, {{.52f, .03f}, {.24f, .18f}, {.15f, .5f}, {.23f, .82f}, {.5f, .97f}, {.77f, .82f}, {.85f, .5f},
                     {.76f, .18f}, {.5f, .03f}}}}},
      {0, {{kCurve, {{.68f, .12f}, {.42f, .06f}, {.18f, .3f}, {.16f, .68f}, {.36f, .95f}, {.66f, .9f}, {.85f, .6f},
                     {.8f, .25f}, {.55f, .08f}}}}},
      {1, {{kLines, {{.5f, .03f}, {.5f, .97f}}}}},
      {1, {{kLines, {{.34f, .24f}, {.54f, .04f}, {.54f, .97f}}}}},
      {1, {{kLines, {{.32f, .22f}, {.52f, .04f}, {.52f, .95f}}}, {kLines, {{.28f, .95f}, {.76f, .95f}}}}},
      {2, {{kCurve, {{.2f, .27f}, {.32f, .08f}, {.6f, .04f}, {.78f, .22f}, {.7f, .46f}, {.45f, .7f}, {.18f, .94f}}},
           {kLines, {{.18f, .94f}, {.84f, .93f}}}}},
      {2, {{kCurve, {{.2f, .25f}, {.42f, .05f}, {.72f, .12f}, {.75f, .36f}, {.54f, .66f}, {.28f, .93f}, {.14f, .84f},
                     {.3f, .74f}, {.56f, .9f}, {.86f, .88f}}}}},
      {3, {{kCurve, {{.2f, .16f}, {.48f, .03f}, {.75f, .18f}, {.66f, .4f}, {.4f, .48f}}},
           {kCurve, {{.4f, .48f}, {.7f, .54f}, {.82f, .74f}, {.58f, .96f}, {.18f, .86f}}}}},
      {3, {{kLines, {{.2f, .07f}, {.76f, .07f}, {.45f, .42f}}},
           {kCurve, {{.45f, .42f}, {.74f, .5f}, {.8f, .76f}, {.55f, .96f}, {.18f, .86f}}}}},
      {4, {{kLines, {{.24f, .05f}, {.17f, .55f}, {.84f, .54f}}}, {kLines, {{.68f, .1f}, {.64f, .97f}}}}},
      {4, {{kLines, {{.84f, .63f}, {.1f, .64f}, {.64f, .04f}, {.63f, .97f}}}}},
      {4, {{kCurve, {{.22f, .06f}, {.18f, .4f}, {.36f, .54f}, {.74f, .44f}}}, {kLines, {{.8f, .05f}, {.66f, .97f}}}}},
      {5, {{kLines, {{.78f, .05f}, {.3f, .06f}, {.25f, .44f}}},
           {kCurve, {{.25f, .44f}, {.56f, .37f}, {.82f, .62f}, {.62f, .93f}, {.18f, .9f}}}}},
      {5, {{kLines, {{.26f, .08f}, {.24f, .46f}}},
           {kCurve, {{.24f, .46f}, {.55f, .4f}, {.8f, .66f}, {.56f, .95f}, {.2f, .88f}}},
           {kLines, {{.28f, .08f}, {.82f, .04f}}}}},
      {6, {{kCurve, {{.68f, .04f}, {.36f, .28f}, {.19f, .66f}, {.36f, .95f}, {.68f, .92f}, {.77f, .68f}, {.52f, .54f},
                     {.22f, .7f}}}}},
      {6, {{kCurve, {{.44f, .03f}, {.24f, .4f}, {.2f, .74f}, {.42f, .97f}, {.72f, .84f}, {.68f, .6f}, {.44f, .56f},
                     {.24f, .76f}}}}},
      {7, {{kLines, {{.15f, .09f}, {.83f, .09f}, {.42f, .97f}}}}},
      {7, {{kLines, {{.15f, .09f}, {.83f, .09f}, {.44f, .97f}}}, {kLines, {{.36f, .5f}, {.78f, .5f}}}}},
      {7, {{kLines, {{.18f, .22f}, {.2f, .08f}, {.8f, .1f}}},
           {kCurve, {{.8f, .1f}, {.6f, .4f}, {.5f, .7f}, {.47f, .97f}}}}},
      {8, {{kCurve, {{.72f, .14f}, {.46f, .03f}, {.26f, .2f}, {.44f, .44f}, {.74f, .7f}, {.56f, .96f}, {.26f, .84f},
                     {.36f, .58f}, {.66f, .36f}, {.74f, .14f}}}}},
      {8, {{kCurve, {{.5f, .48f}, {.26f, .3f}, {.36f, .06f}, {.64f, .06f}, {.74f, .3f}, {.5f, .48f}}},
           {kCurve, {{.5f, .48f}, {.2f, .7f}, {.34f, .96f}, {.66f, .96f}, {.8f, .7f}, {.5f, .48f}}}}},
      {9, {{kCurve, {{.76f, .24f}, {.52f, .04f}, {.24f, .22f}, {.34f, .48f}, {.62f, .44f}, {.77f, .22f}}},
           {kLines, {{.77f, .2f}, {.68f, .97f}}}}},
      {9, {{kCurve, {{.74f, .26f}, {.48f, .05f}, {.22f, .26f}, {.42f, .5f}, {.72f, .34f}, {.77f, .16f}, {.78f, .56f},
                     {.62f, .9f}, {.26f, .94f}}}}},
  };
  return all;
}

// ---- Distortions ----

// Adds the flattened stroke to `path` as a chain of points; curves are Catmull-Rom splines.
void flatten(const Stroke& stroke, std::span<const Point> points, std::vector<Point>& path) {
  constexpr int kPieces = 8;  // of a curve between two of its points: under 2 pixels each
  const int n = int(points.size());
  path.push_back(points[0]);
  for (int i = 0; i + 1 < n; ++i) {
    const Point b = points[i], c = points[i + 1];
    const Point a = points[std::max(i - 1, 0)], d = points[std::min(i + 2, n - 1)];
    for (int k = 1; k <= kPieces; ++k) {
      const float t = float(k) / kPieces;
      if (stroke.curved) {
        const auto blend = [t](float p, float q, float r, float s) {
          return q + 0.5f * t * (r - p + t * (2 * p - 5 * q + 4 * r - s + t * (3 * (q - r) + s - p)));
        };
        path.push_back({blend(a.x, b.x, c.x, d.x), blend(a.y, b.y, c.y, d.y)});
      } else {
        path.push_back({b.x + t * (c.x - b.x), b.y + t * (c.y - b.y)});
      }
    }
  }
}

// An elastic sheet: random displacements at the knots of a grid over the unit box, smooth between them.
class Elastic {
 public:
  Elastic(Random& random, float strength) {
    for (Point& p : knots_) p = {strength * random.normal(), strength * random.normal()};
  }

  Point operator()(Point p) const {
    const float gx = std::clamp(p.x, 0.0f, 1.0f) * (kKnots - 1), gy = std::clamp(p.y, 0.0f, 1.0f) * (kKnots - 1);
    const int ix = std::min(int(gx), kKnots - 2), iy = std::min(int(gy), kKnots - 2);
    const float u = ease(gx - float(ix)), v = ease(gy - float(iy));
    const Point* k = &knots_[iy * kKnots + ix];
    const auto between = [&](float a, float b, float c, float d) {
      return (a + u * (b - a)) * (1 - v) + (c + u * (d - c)) * v;
    };
    return {p.x + between(k[0].x, k[1].x, k[kKnots].x, k[kKnots + 1].x),
            p.y + between(k[0].y, k[1].y, k[kKnots].y, k[kKnots + 1].y)};
  }

 private:
  static constexpr int kKnots = 4;
  static float ease(float t) { return t * t * (3 - 2 * t); }
  std::array<Point, kKnots * kKnots> knots_;
};

// Scale, slant and rotation about the middle of the box, then to pixels with a shift.
class Affine {
 public:
  explicit Affine(Random& random) {
    const float height = random.uniform(15.5f, 21.0f), width = height * random.uniform(0.65f, 1.05f);  // pixels
    const float slant = 0.22f * random.normal(), angle = 0.16f * random.normal();
    // sin and cos by their series: |angle| stays below 0.6, where the error is under a thousandth.
    const float s = angle - angle * angle * angle / 6, c = 1 - angle * angle / 2;
    xx_ = c * width, xy_ = -c * slant * width - s * height;
    yx_ = s * width, yy_ = -s * slant * width + c * height;
    shift_ = {kDigitSide / 2.0f + random.uniform(-2.2f, 2.2f), kDigitSide / 2.0f + random.uniform(-2.2f, 2.2f)};
  }

  Point operator()(Point p) const {
    const float x = p.x - 0.5f, y = p.y - 0.5f;
    return {xx_ * x + xy_ * y + shift_.x, yx_ * x + yy_ * y + shift_.y};
  }

 private:
  float xx_, xy_, yx_, yy_;
  Point shift_;
};

// ---- Drawing ----

// Lowers each pixel's squared distance to the pen's path where the segment a-b comes within `reach` pixels of it.
void approach(Point a, Point b, float reach, std::span<float, kPixels> distance2) {
  const auto first = [reach](float p, float q) { return std::max(0, int(std::floor(std::min(p, q) - reach))); };
  const auto last = [reach](float p, float q) {
    return std::min(kDigitSide - 1, int(std::ceil(std::max(p, q) + reach)));
  };
  const Point d = {b.x - a.x, b.y - a.y};
  const float length2 = d.x * d.x + d.y * d.y, scale = length2 > 0 ? 1 / length2 : 0;
  for (int y = first(a.y, b.y); y <= last(a.y, b.y); ++y) {
    for (int x = first(a.x, b.x); x <= last(a.x, b.x); ++x) {
      const Point p = {float(x) + 0.5f - a.x, float(y) + 0.5f - a.y};
      const float t = std::clamp((p.x * d.x + p.y * d.y) * scale, 0.0f, 1.0f);
      const Point to = {p.x - t * d.x, p.y - t * d.y};
      float& nearest = distance2[y * kDigitSide + x];
      nearest = std::min(nearest, to.x * to.x + to.y * to.y);
    }
  }
}

// Ink by distance, a soft edge, then noise; every pixel draws its own noise.
void ink(std::span<const float, kPixels> distance2, float radius, Random& random, std::uint8_t* image) {
  const float softness = random.uniform(1.0f, 1.7f);  // width of the edge in pixels
  const float strength = random.uniform(190.0f, 265.0f);
  const float grain = random.uniform(0.0f, 26.0f), speckle = grain * random.uniform(0.0f, 1.0f);
  for (int i = 0; i < kPixels; ++i) {
    const float cover = std::clamp((radius - std::sqrt(distance2[i])) / softness + 0.5f, 0.0f, 1.0f);
    const float value = strength * cover + random.normal() * (speckle + (grain - speckle) * cover);
    image[i] = std::uint8_t(std::clamp(value, 0.0f, 255.0f) + 0.5f);
  }
}

std::uint8_t draw(std::uint64_t seed, std::uint64_t index, std::uint8_t* image) {
  Random random(seed, index);
  const int digit = random.below(10);
  const auto [first, end] = std::equal_range(glyphs().begin(), glyphs().end(), Glyph{digit, {}},
                                             [](const Glyph& a, const Glyph& b) { return a.digit < b.digit; });
  const Glyph& glyph = first[random.below(int(end - first))];
  const Affine affine(random);
  const Elastic elastic(random, 0.05f);
  const float jitter = random.uniform(0.01f, 0.035f);
  const float radius = random.uniform(0.7f, 1.7f);  // of the pen, in pixels

  std::array<float, kPixels> distance2;
  distance2.fill(1e6f);
  std::vector<Point> points, path;
  for (const Stroke& stroke : glyph.strokes) {
    points = stroke.points;
    for (Point& p : points) p = {p.x + jitter * random.normal(), p.y + jitter * random.normal()};
    path.clear();
    flatten(stroke, points, path);
    for (Point& p : path) p = affine(elastic(p));
    for (std::size_t i = 0; i + 1 < path.size(); ++i) approach(path[i], path[i + 1], radius + 1.0f, distance2);
  }
  ink(distance2, radius, random, image);
  return std::uint8_t(digit);
}

}  // namespace

void make_digits(std::uint64_t seed, std::int64_t count, std::uint8_t* images, std::uint8_t* labels, int threads) {
  constexpr std::int64_t kBlock = 256;  // images that a thread takes at a time
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    for (std::int64_t begin; (begin = next.fetch_add(kBlock)) < count;)
      for (std::int64_t i = begin; i < std::min(begin + kBlock, count); ++i)
        labels[i] = draw(seed, std::uint64_t(i), images + i * kPixels);
  };

  if (threads <= 0) threads = int(std::max(1u, std::thread::hardware_concurrency()));
  const std::int64_t useful = std::max<std::int64_t>(1, (count + kBlock - 1) / kBlock);
  std::vector<std::jthread> helpers;
  for (std::int64_t t = 1; t < std::min<std::int64_t>(threads, useful); ++t) {
    try {
      helpers.emplace_back(work);
    } catch (const std::system_error&) {
      break;  // No more threads: those that started, and this one, do all the work.
    }
  }
  work();
}

}  // namespace owl
