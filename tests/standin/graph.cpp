// Stream capture, and its graphs: chains in which each node depends on the one before.
#include "standin.h"

using namespace standin;

namespace {

// Captures into a new graph, or after the last node of `graph`.
CUresult begin_capture(CUstream stream, CUgraph graph, CUstreamCaptureMode mode) {
  if (world().find(stream) != stream) {  // the default stream cannot be captured
    return world().find(stream) ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_ERROR_INVALID_HANDLE;
  }
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capture = std::make_unique<Capture>();
  stream->capture->id = ++world().captures;
  stream->capture->mode = mode;
  stream->capture->thread = std::this_thread::get_id();
  stream->capture->owns = !graph;
  if (!graph) {
    graph = new CUgraph_st;
    graph->context = stream->context;
    world().graphs.insert(graph);
  }
  stream->capture->graph = graph;
  stream->capture->last = graph->nodes.empty() ? nullptr : graph->nodes.back();
  log(name_of(stream) + "begin capture");
  return CUDA_SUCCESS;
}

bool is_captured_into(CUgraph graph) {
  for (const CUstream stream : world().streams)
    if (stream->capture && stream->capture->graph == graph) return true;
  return false;
}

// A graph's node must depend on the one before: nothing else orders them.
bool follows(CUgraph graph, const CUgraphNode* before, std::size_t count) {
  if (graph->nodes.empty()) return count == 0;
  return count == 1 && before && before[0] == graph->nodes.back();
}

}  // namespace

CUresult CUDAAPI cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  STANDIN_DRIVER(cuStreamBeginCapture, kContext);
  Lock lock(world().mutex);
  return begin_capture(stream, nullptr, mode);
}

CUresult CUDAAPI cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph, const CUgraphNode* before,
                                             const CUgraphEdgeData*, std::size_t count, CUstreamCaptureMode mode) {
  STANDIN_DRIVER(cuStreamBeginCaptureToGraph, kContext);
  Lock lock(world().mutex);
  if (!world().graphs.contains(graph) || is_captured_into(graph) || !follows(graph, before, count))
    return CUDA_ERROR_INVALID_VALUE;
  return begin_capture(stream, graph, mode);
}

CUresult CUDAAPI cuGraphCreate(CUgraph* graph, unsigned flags) {
  STANDIN_DRIVER(cuGraphCreate, kContext);
  if (!graph || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Lock lock(world().mutex);
  *graph = new CUgraph_st;
  (*graph)->context = current;
  world().graphs.insert(*graph);
  return CUDA_SUCCESS;
}

namespace {

void destroy(CUgraph graph) {
  world().graphs.erase(graph);
  for (const CUgraphNode node : graph->nodes) {
    world().nodes.erase(node);
    node->step = {};
    bury(node);
  }
  graph->nodes.clear();
  bury(graph);
}

// Checks that the parameters are those of a launch of this kernel.
CUresult check(const CUDA_KERNEL_NODE_PARAMS& p, CUfunction function) {
  if (p.func != function) return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
  const bool fine = p.gridDimX > 0 && p.gridDimY == 1 && p.gridDimZ == 1 && p.blockDimX > 0 && p.blockDimX <= 1024 &&
                    p.blockDimY == 1 && p.blockDimZ == 1 && p.kernelParams && p.kernelParams[0] && !p.extra;
  return fine ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

CUresult CUDAAPI cuGraphAddKernelNode(CUgraphNode* node, CUgraph graph, const CUgraphNode* before, std::size_t count,
                                      const CUDA_KERNEL_NODE_PARAMS* params) {
  STANDIN_DRIVER(cuGraphAddKernelNode, kContext);
  Lock lock(world().mutex);
  if (!node || !params || !world().graphs.contains(graph) || is_captured_into(graph) || !follows(graph, before, count))
    return CUDA_ERROR_INVALID_VALUE;
  const CUfunction function = params->func;
  if (!world().functions.contains(function) || function->module->context != current) return CUDA_ERROR_INVALID_HANDLE;
  if (const auto result = check(*params, function)) return result;
  Step step;
  step.function = function;
  step.blocks = params->gridDimX;
  step.threads = params->blockDimX;
  const auto* const arguments = static_cast<const std::byte*>(params->kernelParams[0]);
  step.arguments.assign(arguments, arguments + function->argument_bytes);
  *node = world().add_node(graph, std::move(step));
  log("gpu " + std::to_string(graph->context->device) + " graph: add " + function->name + " blocks " +
      std::to_string(params->gridDimX));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  STANDIN_DRIVER(cuStreamEndCapture, kContext);
  Lock lock(world().mutex);
  if (!world().find(stream)) return CUDA_ERROR_INVALID_HANDLE;
  if (!graph) return CUDA_ERROR_INVALID_VALUE;
  if (world().find(stream) != stream || !stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  Capture& capture = *stream->capture;
  if (capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture.thread != std::this_thread::get_id())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  log(name_of(stream) + "end capture (" + std::to_string(capture.graph->nodes.size()) + " nodes)");
  bool unjoined = false;  // a joined stream never rejoins here
  for (const CUstream other : world().streams)
    if (other->joined == stream) other->joined = nullptr, unjoined = true;
  const bool invalid = capture.invalid || unjoined;
  *graph = invalid ? nullptr : capture.graph;
  if (invalid && capture.owns) destroy(capture.graph);
  stream->capture.reset();
  if (unjoined) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  return invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  STANDIN_DRIVER(cuStreamIsCapturing, kContext);
  Lock lock(world().mutex);
  const CUstream stream = world().find(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream == current->plain)  // any blocking stream's capture involves it
    for (const CUstream other : world().streams)
      if (other->context == current && other->blocking && other->capture) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  const Capture* const capture = stream->captured();
  *status = !capture            ? CU_STREAM_CAPTURE_STATUS_NONE
            : capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                               : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                        const CUgraphNode** dependencies, const CUgraphEdgeData** edges,
                                        std::size_t* count) {
  STANDIN_DRIVER(cuStreamGetCaptureInfo, kContext);
  Lock lock(world().mutex);
  const CUstream stream = world().find(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (!status) return CUDA_ERROR_INVALID_VALUE;
  const Capture* const capture = stream->capture.get();
  *status = !capture            ? CU_STREAM_CAPTURE_STATUS_NONE
            : capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                               : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_SUCCESS;
  if (id) *id = capture->id;
  if (graph) *graph = capture->graph;
  if (dependencies) *dependencies = &capture->last;
  if (edges) *edges = nullptr;
  if (count) *count = capture->last ? 1 : 0;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS* params) {
  STANDIN_DRIVER(cuGraphKernelNodeGetParams, kContext);
  Lock lock(world().mutex);
  if (!world().nodes.contains(node) || !node->step.function || !params) return CUDA_ERROR_INVALID_VALUE;
  node->parameter = node->step.arguments.data();
  *params = {};
  params->func = node->step.function;
  params->gridDimX = node->step.blocks;
  params->blockDimX = node->step.threads;
  params->gridDimY = params->gridDimZ = params->blockDimY = params->blockDimZ = 1;
  params->kernelParams = &node->parameter;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphInstantiate(CUgraphExec* exec, CUgraph graph, unsigned long long flags) {
  STANDIN_DRIVER(cuGraphInstantiate, kContext);
  Lock lock(world().mutex);
  if (!exec || !world().graphs.contains(graph) || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (is_captured_into(graph)) return CUDA_ERROR_ILLEGAL_STATE;
  if (!world().take(graph->context, kExecBytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  *exec = new CUgraphExec_st;
  (*exec)->context = graph->context;
  (*exec)->number = ++graph->context->execs;
  (*exec)->source = graph;
  for (const CUgraphNode node : graph->nodes) (*exec)->steps.push_back(node->step);
  world().execs.insert(*exec);
  return CUDA_SUCCESS;
}

// A node of a destroyed graph is invalid.
CUresult CUDAAPI cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_KERNEL_NODE_PARAMS* params) {
  STANDIN_DRIVER(cuGraphExecKernelNodeSetParams, kContext);
  Lock lock(world().mutex);
  if (!world().execs.contains(exec) || !world().nodes.contains(node) || node->graph != exec->source || !params)
    return CUDA_ERROR_INVALID_VALUE;
  Step& step = exec->steps[node->place];
  if (!step.function) return CUDA_ERROR_INVALID_VALUE;
  if (const auto result = check(*params, step.function)) return result;
  step.blocks = params->gridDimX;
  step.threads = params->blockDimX;
  const auto* const arguments = static_cast<const std::byte*>(params->kernelParams[0]);
  step.arguments.assign(arguments, arguments + step.function->argument_bytes);
  return CUDA_SUCCESS;
}

// With the current arguments. Launches of one graph run one after another, on any streams.
CUresult CUDAAPI cuGraphLaunch(CUgraphExec exec, CUstream handle) {
  STANDIN_DRIVER(cuGraphLaunch, kContext);
  Lock lock(world().mutex);
  if (!world().execs.contains(exec)) return CUDA_ERROR_INVALID_VALUE;
  const CUstream stream = world().find(handle);
  if (!stream || stream->context != current || exec->context != current) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    stream->capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  for (const Step& step : exec->steps)
    if (step.function && !world().functions.contains(step.function)) return CUDA_ERROR_INVALID_HANDLE;
  log(name_of(stream) + "graph launch " + std::to_string(exec->number) + " (" + std::to_string(exec->steps.size()) +
      (exec->steps.size() == 1 ? " node)" : " nodes)"));
  Step step;
  step.work = [steps = exec->steps, before = exec->last] {
    if (before) before->wait_and_leave();
    for (const Step& each : steps) {
      nap();
      each.run();
    }
  };
  exec->last = world().mark();
  world().push(stream, std::move(step), exec->last->join());
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphDestroy(CUgraph graph) {
  STANDIN_DRIVER(cuGraphDestroy, kContext);
  Lock lock(world().mutex);
  if (!world().graphs.contains(graph)) return CUDA_ERROR_INVALID_VALUE;
  destroy(graph);
  return CUDA_SUCCESS;
}

// Launched work still runs.
CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec exec) {
  STANDIN_DRIVER(cuGraphExecDestroy, kContext);
  Lock lock(world().mutex);
  if (world().execs.erase(exec) == 0) return CUDA_ERROR_INVALID_VALUE;
  if (exec->last) exec->last->leave();
  world().give_back(exec->context, kExecBytes);
  exec->steps.clear();
  bury(exec);
  return CUDA_SUCCESS;
}
