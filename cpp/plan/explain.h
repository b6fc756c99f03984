// What the planner would do, for people (and for the tests that hold it to its structure): what explain() and draw() give,
// and what OWL_DUMP writes.
#pragma once

#include <string>
#include <vector>

#include "graph/node.h"
#include "owl/inspect.h"

namespace owl {

// The tasks that would compute the nodes `values`, or (null) everything in the window.
Plan explain_window(const std::vector<Node*>& window, const std::vector<Node*>* values);
// The graph behind the nodes `values` in Graphviz' language.
std::string draw_window(const std::vector<Node*>& window, const std::vector<Node*>& values);

}  // namespace owl
