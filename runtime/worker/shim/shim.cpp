// What libtorch has and tch lacks: mixed precision with bfloat16, switches of arithmetic, memory statistics, and updates of
// many tensors in one call.
//
// Nothing here needs CUDA's headers or libraries: the statistics go through libtorch's device-independent allocator, which a
// CUDA libtorch fills in when it is loaded.

#include "caught.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_sgd.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

namespace {

at::DeviceType device(int32_t cuda) { return cuda ? at::kCUDA : at::kCPU; }

}  // namespace

std::string &harness_failure() {
  thread_local std::string text;
  return text;
}

extern "C" {

// Copies the message of this thread's last failure, at most `room` bytes with the closing 0.
void harness_last_failure(char *out, size_t room) {
  if (room == 0) return;
  std::strncpy(out, harness_failure().c_str(), room - 1);
  out[room - 1] = 0;
}

// Operations of this thread that profit from it compute in bfloat16 from here on, until `harness_autocast_end`.
int32_t harness_autocast_begin(int32_t cuda) {
  return caught([&] {
    at::autocast::set_autocast_dtype(device(cuda), at::kBFloat16);
    at::autocast::set_autocast_enabled(device(cuda), true);
    at::autocast::increment_nesting();
  });
}

// The weights' copies in bfloat16 are forgotten, since the weights are about to change.
int32_t harness_autocast_end(int32_t cuda) {
  return caught([&] {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device(cuda), false);
  });
}

// Whether products in float32 may be rounded to TF32 first, where the device can; cuDNN's choice of algorithms is fixed
// to deterministic ones.
int32_t harness_arithmetic(int32_t tf32) {
  return caught([&] {
    auto &context = at::globalContext();
    context.setAllowTF32CuBLAS(tf32 != 0);
    context.setAllowTF32CuDNN(tf32 != 0);
    context.setDeterministicCuDNN(true);
    context.setBenchmarkCuDNN(false);
  });
}

// Largest memory that tensors took on a GPU since the last reset, bytes.
int32_t harness_peak_memory(int32_t index, int64_t *bytes) {
  return caught([&] {
    auto stats = at::getDeviceAllocator(at::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    *bytes = stats.allocated_bytes[0].peak;
  });
}

// Starts a new measurement of `harness_peak_memory`.
int32_t harness_reset_memory(int32_t index) {
  return caught([&] { at::getDeviceAllocator(at::kCUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(index)); });
}

// Gives unused GPU memory back to the system.
int32_t harness_release_memory() {
  return caught([&] { at::getDeviceAllocator(at::kCUDA)->emptyCache(); });
}

// One step of SGD on all parameters: d = g + decay p; v = d at the first step, later momentum v + d; p -= rate v. Without
// momentum `momenta` is not read.
int32_t harness_sgd(at::Tensor *const *parameters, at::Tensor *const *gradients, at::Tensor *const *momenta, size_t count,
                    double rate, double momentum, double decay, int32_t first) {
  return caught([&] {
    auto p = list(parameters, count), g = list(gradients, count);
    auto v = momentum == 0.0 ? std::vector<at::Tensor>() : list(momenta, count);
    at::_fused_sgd_(p, g, v, decay, momentum, rate, /*dampening=*/0.0, /*nesterov=*/false, /*maximize=*/false, first != 0,
                    std::nullopt, std::nullopt);
  });
}

// a = keep a + (1 - keep) b for every pair.
int32_t harness_follow(at::Tensor *const *a, at::Tensor *const *b, size_t count, double keep) {
  return caught([&] {
    auto mine = list(a, count), theirs = list(b, count);
    at::_foreach_mul_(mine, keep);
    at::_foreach_add_(mine, theirs, 1.0 - keep);
  });
}
}
