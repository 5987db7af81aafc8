// Exceptions end here: every function of the shim gives a status, and the message of the last failure can be asked for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

// The message of this thread's last failure.
std::string &harness_failure();

// 0, or 1 after an exception, which nobody on the other side could catch.
template <typename F>
int32_t caught(F &&f) {
  try {
    f();
    return 0;
  } catch (const std::exception &error) {
    harness_failure() = error.what();
    return 1;
  } catch (...) {
    harness_failure() = "an exception of unknown type";
    return 1;
  }
}

inline std::vector<at::Tensor> list(at::Tensor *const *tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
  return out;
}
