// tests/cudnn/pretended_driver.cpp - a libcuda.so.1 for machines without one: it says yes to everything that cuDNN asks of a
// driver while it makes a plan, and hands out addresses that nobody reads. Nothing can be launched with it.
//
// The toolkit's own stand-in (lib64/stubs) says no, and cuDNN then drops its plans after it has compiled them.
namespace {
int something = 0;
}

#define EVERGRAD_HANDS_OUT(name)   \
  extern "C" int name(void** to) { \
    *to = &something;              \
    return 0;                      \
  }
#define EVERGRAD_SAYS_YES(name) \
  extern "C" int name() { return 0; }

EVERGRAD_HANDS_OUT(cuLibraryLoadData)
EVERGRAD_HANDS_OUT(cuLibraryLoadFromFile)
EVERGRAD_HANDS_OUT(cuLibraryGetKernel)
EVERGRAD_HANDS_OUT(cuLibraryGetModule)
EVERGRAD_HANDS_OUT(cuKernelGetFunction)
EVERGRAD_HANDS_OUT(cuModuleLoadData)
EVERGRAD_HANDS_OUT(cuModuleLoadDataEx)
EVERGRAD_HANDS_OUT(cuModuleGetFunction)
EVERGRAD_HANDS_OUT(cuCtxGetCurrent)
EVERGRAD_HANDS_OUT(cuCtxPopCurrent)
EVERGRAD_SAYS_YES(cuLibraryUnload)
EVERGRAD_SAYS_YES(cuModuleUnload)
EVERGRAD_SAYS_YES(cuKernelSetAttribute)
EVERGRAD_SAYS_YES(cuKernelGetAttribute)
EVERGRAD_SAYS_YES(cuFuncSetAttribute)
EVERGRAD_SAYS_YES(cuCtxPushCurrent)
EVERGRAD_SAYS_YES(cuCtxGetLimit)
EVERGRAD_SAYS_YES(cuStreamGetCtx)
EVERGRAD_SAYS_YES(cuDeviceGet)
EVERGRAD_SAYS_YES(cuGetErrorName)
EVERGRAD_SAYS_YES(cuGetErrorString)
EVERGRAD_SAYS_YES(cuLinkCreate)
EVERGRAD_SAYS_YES(cuLinkAddData)
EVERGRAD_SAYS_YES(cuLinkComplete)
EVERGRAD_SAYS_YES(cuLinkDestroy)
EVERGRAD_SAYS_YES(cuLaunchKernel)
EVERGRAD_SAYS_YES(cuLaunchKernelEx)
EVERGRAD_SAYS_YES(cuLaunchCooperativeKernel)
EVERGRAD_SAYS_YES(cuOccupancyMaxPotentialClusterSize)

extern "C" int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
/// No device, as where there is no driver.
extern "C" int cuDeviceGetCount(int* count) {
  *count = 0;
  return 100;
}
