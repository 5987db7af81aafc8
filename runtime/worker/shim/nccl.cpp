// The half of the shim that needs CUDA's and NCCL's headers: a library of its own, loaded where several GPUs learn together.
// Built by `make nccl` against a libtorch with CUDA.

#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <chrono>
#include <cstring>
#include <exception>

extern "C" {

// Meets the other ranks in the file `path`, on GPU `index`; a pointer to a backend, or null with the reason in `said`.
void *harness_nccl_join(const char *path, int32_t rank, int32_t size, int64_t timeout, int32_t index, char *said,
                        size_t room) {
  try {
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
    auto limit = std::chrono::milliseconds(timeout);
    auto store = c10::make_intrusive<c10d::FileStore>(path, size);
    store->setTimeout(limit);
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = limit;
    auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
    return new c10::intrusive_ptr<c10d::Backend>(backend);
  } catch (const std::exception &error) {
    std::strncpy(said, error.what(), room - 1);
    said[room - 1] = 0;
    return nullptr;
  }
}
}
