// The planner's plans as tables and graphs, for users and for tests of the planner: the results of explain() and
// draw(), and the files of OWL_DUMP.
#pragma once

#include <string>
#include <vector>

#include "graph/node.h"
#include "owl/inspect.h"

namespace owl {

// The tasks that would compute the nodes `values`, or (null) everything in the window.
Plan explain_window(const std::vector<Node*>& window, const std::vector<Node*>* values);
// The graph of the nodes `values` in Graphviz' language.
std::string draw_window(const std::vector<Node*>& window, const std::vector<Node*>& values);

}  // namespace owl
