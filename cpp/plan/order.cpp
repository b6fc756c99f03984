// Ordering: each group after those that it needs, otherwise close to the order of recording, in which a program needs
// least memory: a group's position is that of its last recorded operation.
#include "plan/order.h"

#include <algorithm>

namespace owl::planner {

namespace {

// Where the group's operation stands that was recorded last.
std::int32_t place(const Group& group) {
  std::int32_t at = group.kernel ? group.kernel->plan.index : -1;
  for (const Part* part : {&group.before, &group.after})
    if (!part->members.empty()) at = std::max(at, part->members.back()->plan.index);
  return at;
}

}  // namespace

std::vector<GroupId> order(const Batch& batch) {
  std::vector<GroupId> waiting, blocked, ordered;
  for (GroupId g = 0; g < batch.groups.size(); ++g)
    if (!batch.groups[g].merged_away) waiting.push_back(g);
  std::ranges::sort(waiting, {}, [&batch](GroupId g) { return place(batch.groups[g]); });
  ordered.reserve(waiting.size());
  GroupSet done;
  while (!waiting.empty()) {
    for (const GroupId g : waiting) {
      if ((batch.groups[g].needs & ~done).any()) {
        blocked.push_back(g);
        continue;
      }
      ordered.push_back(g);
      done.set(g);
    }
    if (blocked.size() == waiting.size()) broken("the groups that are left wait for one another");
    waiting.swap(blocked);
    blocked.clear();
  }
  return ordered;
}

}  // namespace owl::planner
