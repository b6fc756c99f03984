// The gradient of an operation: a rule over recorded operations, and what of the forward pass the rule reads.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "graph/op.h"
#include "owl/narray.h"

namespace owl {

// What flows backward: an array of the value's shape, one number that all its elements have, or an exact zero, for
// which nothing is recorded. A number becomes an array only where a rule or a caller asks for one.
class Term {
 public:
  Term() : zero_(true) {}
  Term(double number) : number_(number) {}
  Term(NArray array) : array_(std::move(array)) {}

  bool is_zero() const { return zero_; }
  bool is_number() const { return !zero_ && !array_.has_value(); }
  bool is_array() const { return array_.has_value(); }
  double number() const { return number_; }
  const NArray& array() const { return array_; }
  Operand operand() const { return is_array() ? Operand(array_) : Operand(number_); }

 private:
  NArray array_;
  double number_ = 0;
  bool zero_ = false;
};

// What a rule sees of one recorded operation, and where it leaves the gradients of its operands.
class Rule {
 public:
  template <class P> const P& params() const { return static_cast<const P&>(*params_); }
  const std::shared_ptr<const Params>& shared_params() const { return params_; }

  // The gradient of a result; zero for one that nothing depends on.
  virtual const Term& error(std::size_t result = 0) const = 0;
  OWL_MODULE_API NArray error_array(std::size_t result = 0) const;  // as an array of the result's shape and type
  // What `saves` names. An operand comes in the type in which it was computed; a number as a number.
  virtual const Term& operand(std::size_t i) const = 0;
  virtual const NArray& result(std::size_t i = 0) const = 0;
  const NArray& array(std::size_t i) const { return operand(i).array(); }

  virtual std::size_t operand_count() const = 0;
  virtual const Shape& shape(std::size_t i) const = 0;  // of operand i, an array
  virtual const ResultType& result_type(std::size_t i = 0) const = 0;
  virtual bool is_transposed(std::size_t i) const = 0;  // operand i: in memory, axis 1 comes before axis 0

  // Whether the gradient of operand i is asked for. A rule calls `to` for each that is.
  virtual bool wants(std::size_t i) const = 0;
  // The gradient of operand i: of its shape, or of one that broadcasting it gave, along which it is summed.
  void to(std::size_t i, Term gradient) {
    if (wants(i)) accept(i, std::move(gradient));
  }
  // The same, computed where it is wanted alone.
  template <class F> requires requires(F f) { Term(f()); }
  void to(std::size_t i, F compute) {
    if (wants(i)) accept(i, Term(compute()));
  }
  // It is zero almost everywhere.
  void zero(std::size_t i) { to(i, Term()); }

 protected:
  explicit Rule(std::shared_ptr<const Params> params) : params_(std::move(params)) {}
  ~Rule() = default;
  virtual void accept(std::size_t i, Term gradient) = 0;

 private:
  std::shared_ptr<const Params> params_;
};

// What a rule reads: bit i operand i, bit 16 + i result i.
using Saves = std::uint32_t;
inline constexpr Saves kAllOperands = 0xffff, kAllResults = 0xffff0000;
constexpr Saves operand(int i) { return Saves{1} << i; }
constexpr Saves result(int i = 0) { return Saves{1} << (16 + i); }
constexpr bool saves_operand(Saves saves, std::size_t i) { return saves >> (i < 15 ? i : 15) & 1; }
constexpr bool saves_result(Saves saves, std::size_t i) { return saves >> (i < 15 ? 16 + i : 31) & 1; }

struct Gradient {
  // For the gradient of operand i; of operands beyond the last, as the last.
  Saves saves[kInlineInputs] = {};
  void (*rule)(Rule& rule) = nullptr;  // null: there is none by nature; the result is a constant to every tape
  // Where parameters decide: what is saved in place of `saves`, whichever operand's gradient is asked for.
  Saves (*saves_by)(const Params* params) = nullptr;
  // Whether the rule can be run: null, or false with the reason for a user's operation that has none.
  bool (*exists)(const Params* params) = nullptr;

  Saves saved_for(std::size_t i, const Params* params) const {
    return saves_by ? saves_by(params) : saves[i < kInlineInputs ? i : kInlineInputs - 1];
  }
};

// By nature: comparisons, places, roundings, random numbers.
inline constexpr Gradient no_gradient{};

}  // namespace owl
