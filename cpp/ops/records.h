// Where the records of the elementwise operations are; the other families declare theirs where they are used.
#pragma once

#include <span>

#include "graph/op.h"

namespace owl {

// In the order of their codes (ops/elementwise.h).
std::span<const OpRecord> elementwise_records();
const OpRecord& elementwise_op(std::uint16_t code);
const OpRecord& cast_op();
const OpRecord* find_elementwise(std::string_view name);  // null where there is none

}  // namespace owl
