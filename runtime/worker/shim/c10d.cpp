// Several ranks that learn together, through libtorch's own c10d: a group of processes, gradients that are summed in buckets
// while the backward pass still runs, and sums that gradients flow through.
//
// Gloo on CPUs is part of libtorch_cpu. NCCL comes from the shim's other half (nccl.cpp), which is loaded where CUDA is.

#include "caught.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using Backend = c10::intrusive_ptr<c10d::Backend>;

// Ends an operation, or throws what went wrong in it.
void finish(const c10::intrusive_ptr<c10d::Work> &work) {
  TORCH_CHECK(work->wait(), "a collective operation did not end");
}

struct Group {
  Backend backend;

  void sum(at::Tensor tensor) {
    std::vector<at::Tensor> one{std::move(tensor)};
    finish(backend->allreduce(one));
  }
};

// Parameters whose gradients travel together.
struct Bucket {
  at::Tensor flat;
  std::vector<size_t> members;
  size_t missing = 0;
  c10::intrusive_ptr<c10d::Work> work;
};

// Gradients of all parameters, in buckets that are summed over the ranks as soon as they are full.
struct Buckets {
  Group *group = nullptr;
  std::vector<at::Tensor> parameters;
  // Where each parameter's gradient lies: a view into its bucket, laid out as the parameter.
  std::vector<at::Tensor> views;
  std::vector<size_t> bucket_of;
  std::vector<Bucket> buckets;
  // Gradients of earlier parts of the batch, to be added; none while there are none.
  std::vector<at::Tensor> earlier;
  bool armed = false;

  // A gradient is there. It is called by the backward pass, on the thread that runs it.
  void ready(size_t index, const at::Tensor &gradient) {
    if (!armed) return;
    at::NoGradGuard off;
    views[index].copy_(gradient);
    if (!earlier.empty()) views[index].add_(earlier[index]);
    auto &bucket = buckets[bucket_of[index]];
    if (--bucket.missing == 0) {
      std::vector<at::Tensor> one{bucket.flat};
      bucket.work = group->backend->allreduce(one);
    }
  }
};

// The sum over all ranks; its gradient is the sum of the ranks' gradients.
struct Sum : public torch::autograd::Function<Sum> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, int64_t group) {
    context->saved_data["group"] = group;
    auto out = x.contiguous().clone();
    reinterpret_cast<Group *>(group)->sum(out);
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto out = gradients[0].contiguous().clone();
    reinterpret_cast<Group *>(context->saved_data["group"].toInt())->sum(out);
    return {out, at::Tensor()};
  }
};

}  // namespace

extern "C" {

// Meets the other ranks of this machine in the file `path`; a Group, or null. Waits for them, and later for every operation,
// `timeout` milliseconds at most.
void *harness_group_gloo(const char *path, int32_t rank, int32_t size, int64_t timeout) {
  void *made = nullptr;
  caught([&] {
    auto limit = std::chrono::milliseconds(timeout);
    auto store = c10::make_intrusive<c10d::FileStore>(path, size);
    store->setTimeout(limit);
    auto options = c10d::ProcessGroupGloo::Options::create(limit);
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
    made = new Group{c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options)};
  });
  return made;
}

// A Group around a backend of the other half.
void *harness_group_of(void *backend) {
  return new Group{*static_cast<Backend *>(backend)};
}

void harness_group_free(void *group) { delete static_cast<Group *>(group); }

// tensor = its sum over all ranks.
int32_t harness_group_sum(void *group, at::Tensor *tensor) {
  return caught([&] {
    at::NoGradGuard off;
    static_cast<Group *>(group)->sum(*tensor);
  });
}

// out = the ranks' tensors one after the other, along the first dimension. Both are contiguous.
int32_t harness_group_gather(void *group, at::Tensor *out, at::Tensor *tensor) {
  return caught([&] {
    at::NoGradGuard off;
    std::vector<at::Tensor> in{*tensor};
    auto parts = out->chunk(out->size(0) / tensor->size(0));
    std::vector<std::vector<at::Tensor>> lists{parts};
    finish(static_cast<Group *>(group)->backend->allgather(lists, in));
  });
}

// out = the sum over all ranks, which gradients flow through; a new tensor, or null.
at::Tensor *harness_group_differentiable_sum(void *group, at::Tensor *tensor) {
  at::Tensor *out = nullptr;
  caught([&] { out = new at::Tensor(Sum::apply(*tensor, reinterpret_cast<int64_t>(group))); });
  return out;
}

// Buckets of at most `bytes` (the first of a twentieth of it, so that travelling starts soon) for these parameters, the last
// ones first, as their gradients come first; null on failure. Lives as long as the parameters are learned.
void *harness_buckets_new(void *group, at::Tensor *const *parameters, size_t count, size_t bytes) {
  Buckets *made = nullptr;
  int32_t status = caught([&] {
    at::NoGradGuard off;
    auto owned = std::make_unique<Buckets>();
    owned->group = static_cast<Group *>(group);
    owned->parameters = list(parameters, count);
    owned->views.resize(count);
    owned->bucket_of.resize(count);
    std::vector<std::vector<size_t>> plans;
    size_t filled = 0;
    for (size_t left = count; left-- > 0;) {
      const auto &parameter = owned->parameters[left];
      size_t size = parameter.numel() * parameter.element_size();
      size_t limit = plans.size() <= 1 ? bytes / 20 : bytes;
      bool fresh = plans.empty() || filled + size > limit ||
                   parameter.scalar_type() != owned->parameters[plans.back().back()].scalar_type();
      if (fresh) {
        plans.emplace_back();
        filled = 0;
      }
      plans.back().push_back(left);
      filled += size;
    }
    for (auto &members : plans) {
      int64_t length = 0;
      for (size_t index : members) length += owned->parameters[index].numel();
      Bucket bucket;
      bucket.flat = at::zeros({length}, owned->parameters[members[0]].options().requires_grad(false));
      int64_t at = 0;
      for (size_t index : members) {
        const auto &parameter = owned->parameters[index];
        // A parameter's memory has no holes, in whatever order its dimensions lie.
        owned->views[index] = bucket.flat.as_strided(parameter.sizes(), parameter.strides(), at);
        owned->bucket_of[index] = owned->buckets.size();
        at += parameter.numel();
      }
      bucket.members = members;
      owned->buckets.push_back(std::move(bucket));
    }
    made = owned.get();
    for (size_t index = 0; index < count; ++index) {
      auto parameter = owned->parameters[index];
      parameter.register_hook([made, index](const at::Tensor &gradient) { made->ready(index, gradient); });
    }
    owned.release();
  });
  return status == 0 ? made : nullptr;
}

// From here on the next backward pass fills the buckets. `earlier`: gradients that are added to them, or null.
int32_t harness_buckets_arm(void *buckets, at::Tensor *const *earlier) {
  return caught([&] {
    auto &all = *static_cast<Buckets *>(buckets);
    all.earlier = earlier == nullptr ? std::vector<at::Tensor>() : list(earlier, all.parameters.size());
    for (auto &bucket : all.buckets) {
      bucket.missing = bucket.members.size();
      bucket.work.reset();
    }
    all.armed = true;
  });
}

// Waits until all gradients are summed; writes for each parameter a new tensor object, sharing the buckets' memory until the
// next pass.
int32_t harness_buckets_wait(void *buckets, at::Tensor **out) {
  return caught([&] {
    auto &all = *static_cast<Buckets *>(buckets);
    all.armed = false;
    for (auto &bucket : all.buckets) {
      TORCH_CHECK(bucket.missing == 0 && bucket.work, "the backward pass gave no gradient for ", bucket.missing,
                  " of the parameters");
      finish(bucket.work);
      bucket.work.reset();
    }
    all.earlier.clear();
    for (size_t index = 0; index < all.views.size(); ++index) out[index] = new at::Tensor(all.views[index]);
  });
}

size_t harness_buckets_count(void *buckets) { return static_cast<Buckets *>(buckets)->buckets.size(); }

// The buckets' memory is given back; the parameters' hooks, which hold on to the rest, do nothing from here on.
void harness_buckets_free(void *buckets) {
  auto &all = *static_cast<Buckets *>(buckets);
  all.armed = false;
  all.views.clear();
  all.buckets.clear();
  all.earlier.clear();
}
}
