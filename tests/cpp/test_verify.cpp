// The planner's checks (plan/verify.h): each violated invariant is reported, and random graphs violate none.
#include <algorithm>
#include <functional>

#include "plan/emit.h"
#include "plan/fill_in.h"
#include "plan/group.h"
#include "plan/layout.h"
#include "plan/order.h"
#include "plan/verify.h"
#include "plan/task.h"
#include "random_graph.h"
#include "support.h"

namespace owl::test {
namespace {

using planner::Batch;
using planner::GroupId;

// A batch, and its plan as far as the called passes have made it.
struct Planned {
  Planned(std::span<Node* const> nodes, DryPlan& dry_plan) : batch(nodes), dry(dry_plan), earlier(dry.tasks.size()) {}
  Batch batch;
  std::vector<GroupId> order;
  DryPlan& dry;
  const std::size_t earlier;  // tasks of batches before

  void group() {
    planner::group(batch);
    planner::verify_groups(batch);
  }
  void lay_out() {
    planner::lay_out(batch);
    planner::verify_layouts(batch);
  }
  void put_in_order() {
    order = planner::order(batch);
    planner::verify_order(batch, order);
  }
  void emit() {
    auto plan = planner::emit(batch, order);
    planner::fill_in(plan, batch.nodes, dry.tasks, &dry);
    verify_tasks();
  }
  void verify_tasks() { planner::verify_tasks(batch, std::span(dry.tasks).subspan(earlier), &dry); }
  void all() { group(), lay_out(), put_in_order(), emit(); }

  // Puts elementwise operation i into another group, against the rules.
  void move(std::size_t i, GroupId to, TaskPart part = TaskPart::kBefore) {
    Node& moved = node(i);
    planner::Group& from = group_of(i);
    std::erase(from.part(moved.plan.part).members, &moved);
    from.merged_away = from.before.members.empty() && !from.kernel;
    auto& p = batch.groups[to].part(part);
    p.members.push_back(&moved);
    p.load.instructions += 1, p.load.inputs += static_cast<int>(moved.input_count);
    batch.group_of[i] = to;
    moved.plan.part = part;
  }

  Node& node(std::size_t i) { return *batch.nodes[i]; }
  planner::Group& group_of(std::size_t i) { return batch.groups[batch.group_of[i]]; }
  Task& task(std::size_t i) { return *dry.tasks[i]; }
};

using Change = std::function<void(Planned&)>;

class Verify : public ::testing::Test {
 protected:
  void SetUp() override { wait_for_all(); }

  // Plans the recorded operations, dry, by `passes`. Returns the report of `verify` after `break_it` has changed the
  // plan.
  static std::string report(const Change& passes, const Change& break_it, const Change& verify) {
    std::string message;
    Engine::get().with_window([&](const std::vector<Node*>& window) {
      DryPlan dry;
      Planned planned(window, dry);
      passes(planned);
      break_it(planned);
      try {
        verify(planned);
      } catch (const Error& e) {
        message = e.what();
      }
    });
    return message;
  }

  static std::string groups(const Change& break_it) {
    return report([](Planned& p) { p.group(); }, break_it, [](Planned& p) { planner::verify_groups(p.batch); });
  }
  static std::string layouts(const Change& break_it) {
    return report([](Planned& p) { p.group(), p.lay_out(); }, break_it,
                  [](Planned& p) { planner::verify_layouts(p.batch); });
  }
  static std::string order(const Change& break_it) {
    return report([](Planned& p) { p.group(), p.lay_out(), p.put_in_order(); }, break_it,
                  [](Planned& p) { planner::verify_order(p.batch, p.order); });
  }
  static std::string tasks(const Change& break_it) {
    return report([](Planned& p) { p.all(); }, break_it, [](Planned& p) { p.verify_tasks(); });
  }

  Window window_{1 << 20, -1};
};

std::string says(const std::string& what) { return "internal error: planner: " + what; }

//   x -> [0 add, 1 mult] -> 2 matmul -> [3 relu]        group 0: the program, group 1: the product and its relu
struct Products {
  NArray x = ramp({3, 3}), a = x + 1.0, b = a * 2.0, c = b * b, d = elewise::relu(c);
};

//   x -> [0 add -> 1 sum -> 2 add]                      one group: the sum between programs
struct Sum {
  NArray x = ramp({4, 2}), t = (x + 1.0).sum() + 1.0;
};

TEST_F(Verify, WhatIsPlannedIsSound) {
  const Products p;
  const Sum s;
  EXPECT_EQ(tasks([](Planned&) {}), "");
}

TEST_F(Verify, EachOperationIsInOneGroup) {
  const Products p;
  EXPECT_EQ(groups([](Planned& q) { q.group_of(1).before.members.pop_back(); }),
            says("operation 1 (mult) is in no group"));
  EXPECT_EQ(groups([](Planned& q) { q.group_of(2).after.members.push_back(&q.node(0)); }),
            says("operation 0 (add) is in group 0 and again in group 1"));
  EXPECT_EQ(groups([](Planned& q) { q.batch.group_of[3] = 0; }),
            says("operation 3 (relu) is in group 1, but noted to be in group 0"));
  EXPECT_EQ(groups([](Planned& q) { q.node(3).plan.part = TaskPart::kBefore; }),
            says("operation 3 (relu) is in part 'after' of group 1, but noted to be in part 'before'"));
  EXPECT_EQ(groups([](Planned& q) { q.node(3).plan.index = 7; }),
            says("group 1 has an operation that is not of this batch"));
  EXPECT_EQ(groups([](Planned& q) { q.batch.groups.emplace_back(); }), says("group 2 is empty"));
  EXPECT_EQ(groups([](Planned& q) { q.group_of(0).merged_away = true; }),
            says("group 0 is merged away and has operations"));
  EXPECT_EQ(groups([](Planned& q) {
              q.group_of(0).kernel = &q.node(0);
              q.group_of(0).before.members = {&q.node(1)};
              q.node(0).plan.part = TaskPart::kKernel;
            }),
            says("operation 0 (add) cannot be in part 'kernel' of group 0"));
}

TEST_F(Verify, MembersStandInTheOrderOfRecording) {
  const Products p;
  EXPECT_EQ(groups([](Planned& q) {
              auto& members = q.group_of(0).before.members;
              std::swap(members[0], members[1]);
            }),
            says("part 'before' of group 0 is not in the order of recording"));
}

TEST_F(Verify, AProgramHasOneShape) {
  const auto a = ramp({4, 2}) + 1.0, b = ramp({4, 3}) + 1.0;
  EXPECT_EQ(groups([](Planned& q) { q.move(1, 0); }),
            says("operation 1 (add) has shape [4, 3], part 'before' of group 0 has [4, 2]"));
}

TEST_F(Verify, AProgramHasOneDevice) {
  static const int other = create_cpu_device();
  const auto x = ramp({4, 2});
  set_device(other);
  const auto y = ramp({4, 2});
  set_device(0);
  const auto a = x + 1.0;
  set_device(other);
  const auto b = y + 1.0;
  set_device(0);
  EXPECT_EQ(groups([](Planned& q) { q.move(1, 0); }),
            says("operation 1 (add) is on another device than part 'before' of group 0"));
}

TEST_F(Verify, AProgramIsWatchedAsAWhole) {
  const Products p;
  EXPECT_EQ(groups([](Planned& q) { q.node(1).traced = true; }),
            says("operation 1 (mult) cannot be watched for NaN in part 'before' of group 0"));
}

TEST_F(Verify, AProgramInAKernelsTaskIsNotWatched) {
  const Products p;
  EXPECT_EQ(groups([](Planned& q) { q.node(2).traced = q.node(3).traced = true; }),
            says("operation 3 (relu) cannot be watched for NaN in part 'after' of group 1"));
}

TEST_F(Verify, ProgramsKeepToTheirLimits) {
  auto y = ramp({4});
  for (int i = 0; i < planner::kMaxInstructions + 1; ++i) y = y + 1.0;
  const std::string where = "part 'before' of group 0 has ";
  EXPECT_EQ(groups([](Planned& q) { q.move(q.batch.nodes.size() - 1, 0); }),
            says(where + "65 instructions, more than 64"));
  EXPECT_EQ(groups([](Planned& q) { q.group_of(0).before.load.instructions = 63; }),
            says(where + "64 instructions, but noted are 63"));
  EXPECT_EQ(groups([](Planned& q) { q.group_of(0).before.load.inputs = 0; }),
            says(where + "1 inputs, but noted are 0"));
}

//   31 additions of float32 -+-> [add]        the addition and its operand's conversion would be instructions 64 and 65
//   32 additions of int32   -+
TEST_F(Verify, ProgramsAreJoinedWhereTheConversionsFitToo) {
  auto x = ramp({4});
  auto y = ramp({4}).astype(DType::kInt32);
  y.wait_for_eval();
  for (int i = 0; i < 31; ++i) x = x + 1.0;
  for (int i = 0; i < 32; ++i) y = y + 1;
  const auto z = x + y;
  EXPECT_EQ(groups([](Planned& q) { EXPECT_EQ(q.batch.groups.size(), 2u); }), "");
}

TEST_F(Verify, ProgramsReadFewArrays) {
  std::vector<NArray> sums;
  for (int i = 0; i < planner::kMaxInputs / 2 + 1; ++i) sums.push_back(ramp({4}) + ramp({4}));
  EXPECT_EQ(groups([](Planned& q) {
              for (std::size_t i = 1; i < q.batch.nodes.size(); ++i) q.move(i, 0);
            }),
            says("part 'before' of group 0 has 26 inputs, more than 24"));
}

TEST_F(Verify, AKernelsTaskPassesValuesOnRangeByRange) {
  const Products p;
  EXPECT_EQ(groups([](Planned& q) { q.move(0, 1), q.move(1, 1); }),
            says("operation 2 (matmul) in part 'kernel' of group 1 cannot read operation 1 (mult) in part 'before'"));
}

TEST_F(Verify, AProgramBeforeAKernelDoesNotReadItsResult) {
  const Sum s;
  EXPECT_EQ(groups([](Planned& q) { q.move(2, 0); }),
            says("operation 2 (add) in part 'before' of group 0 cannot read operation 1 (sum) in part 'kernel'"));
}

TEST_F(Verify, AProgramBeforeAKernelIsReadByIt) {
  const auto x = ramp({4, 2}), s = x.sum(), a = x + 1.0;
  EXPECT_EQ(groups([](Planned& q) { q.move(1, 0); }), says("operation 0 (sum) does not read the program before it"));
}

TEST_F(Verify, GroupsKnowWhatTheyNeed) {
  const Products p;
  EXPECT_EQ(groups([](Planned& q) { q.group_of(2).needs.reset(); }),
            says("group 1 needs group 0, but notes otherwise"));
  EXPECT_EQ(groups([](Planned& q) { q.group_of(0).needs.set(1); }),
            says("group 0 does not need group 1, but notes otherwise"));
  const auto e = p.d * p.d;  // needs group 1 and so, through it, group 0
  EXPECT_EQ(groups([](Planned& q) { q.batch.groups[2].needs.reset(0); }),
            says("group 2 needs group 0, but notes otherwise"));
}

//   x -> 0 add -+-> 1 matmul -+-> [2 sub]
//               +-------------+
TEST_F(Verify, GroupsFormNoCycle) {
  const auto x = ramp({3, 3}), a = x + 1.0, s = a * a, d = a - s;
  EXPECT_EQ(groups([](Planned& q) { q.move(2, 0); }), says("group 0 waits for itself"));
}

//   x -> 0 add -+-> trans -> 1 add
//               +-------------^
TEST_F(Verify, AViewOfAResultIsReadInAnotherGroup) {
  const auto x = ramp({3, 3}), a = x + 1.0, b = a + a.trans();
  EXPECT_EQ(groups([](Planned& q) { q.move(1, 0); }), says("group 0 waits for itself"));
}

TEST_F(Verify, ReadsAreCounted) {
  const Products p;
  EXPECT_EQ(groups([](Planned& q) { ++q.node(0).plan.uses; }),
            says("operation 0 (add) is read 1 times, 1 of them in its group, but noted are 1 and 2"));
  EXPECT_EQ(groups([](Planned& q) { q.node(1).plan.reads = 0; }),
            says("operation 1 (mult) is read 2 times, 0 of them in its group, but noted are 0 and 0"));
}

//   x -> 0 pool -+-> [2 add] -> 3 pool -> y             the values between the poolings are channels last
//   x -> 1 pool -+
struct Pools {
  NArray x = ramp({4, 4, 16, 2}), y;
  Pools() {
    const conv::Pooler pool{2, 2, 1, 1};
    const auto a = pool.ff(x), b = pool.ff(x);
    y = pool.ff(a + b);
  }
};

TEST_F(Verify, ChannelsLastStaysAmongThoseThatKnowIt) {
  const Pools p;
  ASSERT_EQ(tasks([](Planned& q) {
              ASSERT_EQ(q.batch.groups.size(), 4u);
              for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(q.group_of(i).channels_last, i < 3);
            }),
            "");
  EXPECT_EQ(layouts([](Planned& q) { q.group_of(2).channels_last = false; }),
            says("operation 2 (add) reads operation 0 (pool) as planes, but it is channels last"));
  EXPECT_EQ(layouts([](Planned& q) { q.group_of(1).channels_last = false; }),
            says("operation 2 (add) reads operand 1 as channels last, but it is planes"));
  EXPECT_EQ(layouts([](Planned& q) { q.group_of(3).channels_last = true; }),
            says("operation 3 (pool) is channels last and may be read outside this batch"));
}

TEST_F(Verify, OnlyWhatKnowsChannelsLastHasIt) {
  const Products p;
  EXPECT_EQ(layouts([](Planned& q) { q.group_of(0).channels_last = true; }),
            says("operation 0 (add) is channels last in group 0 and no image"));
  EXPECT_EQ(layouts([](Planned& q) { q.group_of(2).channels_last = true; }),
            says("the kernel of group 1 does not know channels last"));
}

TEST_F(Verify, ChannelsLastValuesInMemoryAreFloat32) {
  const Pools p;
  EXPECT_EQ(layouts([](Planned& q) { q.node(2).dtype = DType::kInt32; }),
            says("operation 2 (add) is channels last and not float32"));
}

TEST_F(Verify, EachGroupRunsOnceAfterWhatItNeeds) {
  const Products p;
  EXPECT_EQ(order([](Planned& q) { std::ranges::reverse(q.order); }),
            says("group 1 is to run before group 0, which it needs"));
  EXPECT_EQ(order([](Planned& q) { q.order.push_back(0); }), says("group 0 is to run twice"));
  EXPECT_EQ(order([](Planned& q) { q.order.pop_back(); }), says("group 1 is not to run"));
  EXPECT_EQ(order([](Planned& q) { q.order.push_back(9); }), says("group 9 is to run, but there is none"));
}

TEST_F(Verify, AnOrderThatCannotBeIsReported) {
  const Products p;
  EXPECT_EQ(report([](Planned& q) { q.group(); }, [](Planned& q) { q.group_of(0).needs.set(1); },
                   [](Planned& q) { q.put_in_order(); }),
            says("the groups that are left wait for one another"));
}

TEST_F(Verify, TasksFollowThoseWhoseResultsTheyRead) {
  const Products p;
  EXPECT_EQ(tasks([](Planned& q) { std::swap(q.dry.tasks[0], q.dry.tasks[1]); }),
            says("task 0 (matmul) reads a result of task 1, which does not precede it"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).inputs[0].storage = {}; }),
            says("task 1 (matmul) reads a value that no task computes"));
}

TEST_F(Verify, EachResultIsWrittenOnce) {
  const Products p;
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).outputs[0].storage = q.task(0).outputs[0].storage; }),
            says("task 1 (matmul) writes a result that task 0 writes"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).outputs[0].storage = {}; }),
            says("task 1 (matmul) has a result without memory"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).outputs[0].storage->producer = nullptr; }),
            says("task 1 (matmul) is not noted as its result's producer"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).outputs[0].array.dtype = DType::kFloat64; }),
            says("task 1 (matmul) has a result of another size than its memory"));
}

TEST_F(Verify, WhatIsReadFromMemoryIsThere) {
  const Products p;
  EXPECT_EQ(tasks([](Planned& q) { q.dry.tasks.pop_back(); }),
            says("operation 2 (matmul) has memory that no task writes"));
  EXPECT_EQ(tasks([](Planned& q) { q.dry.storages.erase(DryPlan::value_of(q.node(3))); }),
            says("operation 3 (relu) is read from memory, but has none"));
}

TEST_F(Verify, ATaskHasAllItsParts) {
  const Products p;
  EXPECT_EQ(tasks([](Planned& q) { q.task(0).before = nullptr; }),
            says("task 0 (mult) has neither kernel nor program"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).op = nullptr; }), says("task 1 (matmul) has neither kernel nor program"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(0).after = std::make_unique<Program>(); }),
            says("task 0 (mult) has a program behind no kernel"));
  EXPECT_EQ(tasks([](Planned& q) {
              Program broken = *q.task(0).before;
              broken.outputs.clear();
              q.task(0).before = std::make_shared<Program>(std::move(broken));
            }),
            says("task 0 (mult) has a program without results"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(0).outputs.clear(); }), says("task 0 (mult) has no results"));
}

TEST_F(Verify, ATasksOperandsAreThoseOfItsParts) {
  const Products p;
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).inputs.pop_back(); }),
            says("task 1 (matmul) has 1 kernel operands, not 2"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(0).inputs.pop_back(); }),
            says("task 0 (mult) has 0 operands of a program in memory, not 1"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(0).inputs[0].array.dtype = DType::kInt32; }),
            says("task 0 (mult) reads operand 0 of a program as another type than it has"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).inputs[1].part = TaskPart::kBefore; }),
            says("task 1 (matmul) has its operands in the wrong order"));
}

TEST_F(Verify, ATasksResultsAreThoseOfItsParts) {
  const Products p;
  EXPECT_EQ(tasks([](Planned& q) {
              Program broken = *q.task(1).after;
              broken.outputs.push_back(broken.outputs[0]);
              q.task(1).after = std::make_shared<Program>(std::move(broken));
            }),
            says("task 1 (matmul) has 2 results, not 3"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).kernel_output = 7; }),
            says("task 1 (matmul) has its kernel write result 7, which is not the kernel's"));
  EXPECT_EQ(tasks([](Planned& q) { q.task(1).outputs[0].part = TaskPart::kAfter; }),
            says("task 1 (matmul) has its kernel write result 0, which is not the kernel's"));
  const auto s = p.x.sum();
  EXPECT_EQ(tasks([](Planned& q) { q.task(2).kernel_output = -1; }),
            says("task 2 (sum) has a kernel without a result"));
}

TEST_F(Verify, AKernelWritesIntoMemoryOfItsOwnElements) {
  const auto x = ramp({3, 3}), y = (x * x).astype(DType::kFloat64);
  EXPECT_EQ(tasks([](Planned& q) {
              q.task(0).kernel_output = 0;
              q.task(0).outputs[0].part = TaskPart::kKernel;
            }),
            says("task 0 (matmul) has its kernel write into memory of other elements"));
}

//   value 0: x; 1: the number 1.0; 2: x + 1.0; 3: its conversion to float64; 4: value 3 times value 3
struct Converted {
  Program program;
  Converted() {
    const auto code = [](const char* name) { return find_op(name)->code; };
    const auto single = DType::kFloat32, twice = DType::kFloat64;
    program.inputs.push_back({single, {}, true});
    program.constants.push_back({single, 1.0});
    program.instructions = {{code("add"), single, single, 2, {0, 1, 0}, {}, 0},
                            {code("cast"), single, twice, 1, {2, 0, 0}, {}, 0},
                            {code("mult"), twice, twice, 2, {3, 3, 0}, {}, 0}};
    program.outputs.push_back({4, twice});
  }
};

std::string of_program(const std::function<void(Program&)>& break_it) {
  Converted c;
  break_it(c.program);
  try {
    planner::verify_program(c.program);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(VerifyProgram, ValuesAreComputedBeforeTheyAreRead) {
  EXPECT_EQ(of_program([](Program&) {}), "");
  EXPECT_EQ(of_program([](Program& p) { p.instructions[0].in[1] = 2; }),
            says("instruction 0 (add) reads value 2 before it is computed"));
  EXPECT_EQ(of_program([](Program& p) { p.instructions[2].in[0] = 4; }),
            says("instruction 2 (mult) reads value 4 before it is computed"));
  EXPECT_EQ(of_program([](Program& p) { p.outputs[0].value = 5; }),
            says("a program's result is value 5, but it has 5 values"));
}

TEST(VerifyProgram, InstructionsHaveTheOperandsOfTheirOperation) {
  EXPECT_EQ(of_program([](Program& p) { p.instructions[0].arity = 3; }),
            says("instruction 0 (add) has 3 operands, not 2"));
  EXPECT_EQ(of_program([](Program& p) { p.instructions[0].code = 9999; }),
            says("instruction 0 has no operation: code 9999"));
}

TEST(VerifyProgram, TypesAgree) {
  EXPECT_EQ(of_program([](Program& p) { p.instructions[2].in[1] = 2; }),
            says("instruction 2 (mult) reads value 2 as float64, but it is float32"));
  EXPECT_EQ(of_program([](Program& p) { p.outputs[0].dtype = DType::kFloat32; }),
            says("a program's result is float32, but its value is float64"));
}

// --- random graphs

// Counts of the random graphs' plans, to check that they reach all passes.
struct Reached {
  int before = 0, after = 0, merged = 0, channels_last = 0, copies = 0, batches = 0;

  void add(const Planned& planned) {
    ++batches;
    for (const auto& group : planned.batch.groups) {
      before += group.kernel && !group.before.members.empty();
      after += !group.after.members.empty();
      merged += group.merged_away;
      channels_last += group.channels_last;
    }
    for (const auto& task : planned.dry.tasks) copies += std::string(task->name) == "copy";
  }
};

TEST_F(Verify, RandomGraphsAreSound) {
  Reached reached;
  for (unsigned seed = 0; seed < 300; ++seed) {
    RandomGraph graph(seed);
    graph.record(10 + static_cast<int>(seed % 90));
    Engine::get().with_window([&](const std::vector<Node*>& window) {
      DryPlan dry;
      const std::span all(window);
      const std::size_t most = seed % 3 ? planner::kMaxBatch : 20;  // batches read results of earlier batches
      for (std::size_t at = 0; at < all.size(); at += most) {
        Planned planned(all.subspan(at, std::min(most, all.size() - at)), dry);
        EXPECT_NO_THROW(planned.all()) << "seed " << seed;
        reached.add(planned);
      }
    });
  }
  EXPECT_GT(reached.before, 100);
  EXPECT_GT(reached.after, 100);
  EXPECT_GT(reached.merged, 100);
  EXPECT_GT(reached.channels_last, 100);
  EXPECT_GT(reached.copies, 100);
  EXPECT_GT(reached.batches, 600);
}

}  // namespace
}  // namespace owl::test
