/* A driver for tests: the names and types of cuda.h over the host's memory, so that what Python passes is held to the
   header. Copies are done at once; a captured graph is a number. */
#include <cuda.h>
#include <stdlib.h>
#include <string.h>

static int live = 0;
static int capturing = 0;
static int launches = 0;
static int depth = 0;
static char context;

int fake_live(void) { return live; }
int fake_launches(void) { return launches; }
int fake_depth(void) { return depth; }

CUresult cuInit(unsigned int flags) { return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  if (ordinal) return CUDA_ERROR_INVALID_DEVICE;
  *device = 7;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device) {
  *out = (CUcontext)&context;
  return device == 7 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuCtxPushCurrent(CUcontext given) {
  depth++;
  return given == (CUcontext)&context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
CUresult cuCtxPopCurrent(CUcontext *out) {
  *out = (CUcontext)&context;
  depth--;
  return CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr *out, size_t size) {
  if (size > (size_t)1 << 40) return CUDA_ERROR_OUT_OF_MEMORY;
  *out = (CUdeviceptr)aligned_alloc(256, (size + 255) / 256 * 256);
  live++;
  return CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr address) {
  free((void *)address);
  live--;
  return CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void **out, size_t size, unsigned int flags) {
  *out = malloc(size);
  live++;
  return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void *address) {
  free(address);
  live--;
  return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
  memcpy((void *)to, from, size);
  return stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream stream) {
  memcpy(to, (void *)from, size);
  return stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
CUresult cuStreamCreate(CUstream *out, unsigned int flags) {
  *out = (CUstream)malloc(1);
  live++;
  return flags == CU_STREAM_NON_BLOCKING ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuStreamDestroy(CUstream stream) {
  free((void *)stream);
  live--;
  return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) { return stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; }
CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  if (!stream || capturing || mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) return CUDA_ERROR_INVALID_VALUE;
  capturing = 1;
  return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *out) {
  if (!stream || !capturing) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  capturing = 0;
  *out = (CUgraph)malloc(1);
  live++;
  return CUDA_SUCCESS;
}
CUresult cuGraphInstantiate(CUgraphExec *out, CUgraph graph, unsigned long long flags) {
  *out = (CUgraphExec)malloc(1);
  live++;
  return graph && !flags ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuGraphDestroy(CUgraph graph) {
  free((void *)graph);
  live--;
  return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec graph) {
  free((void *)graph);
  live--;
  return CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream) {
  launches++;
  return graph && stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
CUresult cuGetErrorName(CUresult error, const char **out) {
  *out = error == CUDA_ERROR_OUT_OF_MEMORY     ? "CUDA_ERROR_OUT_OF_MEMORY"
         : error == CUDA_ERROR_INVALID_DEVICE ? "CUDA_ERROR_INVALID_DEVICE"
                                              : "CUDA_ERROR_OTHER";
  return CUDA_SUCCESS;
}
