// Synthetic handwritten digits: a substitute for MNIST that needs no file. Independent of the rest of owl.
#pragma once

#include <cstdint>

namespace owl {

inline constexpr int kDigitSide = 28;  // pixels along each edge of an image

// Draws `count` digits: `images` takes count * 28 * 28 bytes (row-major, 0 background, 255 ink), `labels` count bytes
// in 0..9. Every digit is a stroke description under random jitter, elastic and affine distortion, with a random pen
// width, ink and noise. Image i depends on `seed` and i alone: neither on `count` nor on `threads` (0 or less: one for
// each processor), so a shorter run gives a prefix of a longer one.
void make_digits(std::uint64_t seed, std::int64_t count, std::uint8_t* images, std::uint8_t* labels, int threads);

}  // namespace owl
