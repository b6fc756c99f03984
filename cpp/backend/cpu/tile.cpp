#include "backend/cpu/tile.h"

#include "backend/cpu/isa/kernels.h"

namespace owl::cpu {

namespace {

const TileTable& table() {
  static const TileTable& best = best_tile_table();
  return best;
}

}  // namespace

TileFn tile_function(std::uint16_t code, DType dtype) { return table().functions[code][static_cast<int>(dtype)]; }
TileFn cast_function(DType from, DType to) { return table().casts[static_cast<int>(from)][static_cast<int>(to)]; }

}  // namespace owl::cpu
