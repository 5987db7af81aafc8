// Several ranks that learn together, through libtorch's own c10d: a group of processes, gradients that are summed in buckets
// while the backward pass still runs, sums that gradients flow through, and batch norm over the rows of all.
//
// Gloo on CPUs is part of libtorch_cpu. NCCL comes from the shim's other half (nccl.cpp), which is loaded where CUDA is.

#include "caught.h"

#include <ATen/ops/batch_norm_update_stats.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

using Backend = c10::intrusive_ptr<c10d::Backend>;

using Work = c10::intrusive_ptr<c10d::Work>;

// Ends an operation, or throws what went wrong in it.
void finish(const Work &work) { TORCH_CHECK(work->wait(), "a collective operation did not end"); }

// Starts an operation. One at a time in this process, whichever groups they are of: c10d's flight recorder, of which there is
// one for all, looks a group up in a map, and enters it there, before it takes its own lock.
template <typename F>
Work started(F &&operation) {
  static std::mutex one_at_a_time;
  std::lock_guard<std::mutex> guard(one_at_a_time);
  return operation();
}

struct Group {
  Backend backend;
  // Whether an operation failed: from then on the ranks may be at different places.
  std::atomic<bool> lost{false};

  explicit Group(Backend backend) : backend(std::move(backend)) {}

  // Does what needs the other ranks, and remembers if it failed, wherever the exception ends.
  template <typename F>
  void together(F &&work) {
    TORCH_CHECK(!lost, "the other ranks were lost before");
    try {
      work();
    } catch (...) {
      lost = true;
      throw;
    }
  }

  void sum(at::Tensor tensor) {
    std::vector<at::Tensor> one{std::move(tensor)};
    together([&] { finish(started([&] { return backend->allreduce(one); })); });
  }

  // The ranks' tensors, one after the other along the first dimension.
  void gather(const at::Tensor &out, const at::Tensor &tensor) {
    std::vector<at::Tensor> in{tensor};
    std::vector<std::vector<at::Tensor>> lists{out.chunk(out.size(0) / tensor.size(0))};
    together([&] { finish(started([&] { return backend->allgather(lists, in); })); });
  }
};

// Parameters whose gradients travel together.
struct Bucket {
  at::Tensor flat;
  std::vector<size_t> members;
  size_t missing = 0;
  Work work;
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
      group->together([&] { bucket.work = started([&] { return group->backend->allreduce(one); }); });
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

// Batch norm by statistics that are those of all ranks' rows together: in the backward pass the part that flows through mean
// and variance has to come from all of them as well. With x̂ = (x - mean) / s, s = sqrt(var + eps), and sums over the `count`
// values of a channel on all ranks:
//   dx = weight / s * (dy - sum(dy) / count - x̂ * sum(dy * x̂) / count)
// Gradients of weight and bias are those of this rank's rows.
struct SharedNorm : public torch::autograd::Function<SharedNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, const at::Tensor &weight,
                            const at::Tensor &bias, const at::Tensor &mean, const at::Tensor &var,
                            const at::Tensor &count, double eps, int64_t group) {
    context->save_for_backward({x, weight, mean, var, count});
    context->saved_data["eps"] = eps;
    context->saved_data["group"] = group;
    return std::get<0>(at::native_batch_norm(x, weight, bias, mean, var, false, 0.0, eps));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &mean = saved[2], &var = saved[3], &count = saved[4];
    double eps = context->saved_data["eps"].toDouble();
    // As if the statistics were constants…
    auto [dx, dweight, dbias] =
        at::native_batch_norm_backward(gradients[0], x, weight, mean, var, {}, {}, false, eps, {true, true, true});
    // …and what they add: the sums are gradients of weight and bias, w * x̂ + b is batch norm by other weights.
    auto sums = at::stack({dweight, dbias}).to(at::kDouble);
    reinterpret_cast<Group *>(context->saved_data["group"].toInt())->sum(sums);
    auto scale = weight.to(at::kDouble) / (var.to(at::kDouble) + eps).sqrt() / count;
    auto through = (sums * scale).to(weight.scalar_type());
    dx.sub_(std::get<0>(at::native_batch_norm(x, through[0], through[1], mean, var, false, 0.0, eps)));
    at::Tensor none;
    return {dx, dweight, dbias, none, none, none, none, none};
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
    made = new Group(c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options));
  });
  return made;
}

// A Group around a backend of the other half.
void *harness_group_of(void *backend) {
  return new Group(*static_cast<Backend *>(backend));
}

void harness_group_free(void *group) { delete static_cast<Group *>(group); }

// Whether an operation failed; all later ones fail then, too.
bool harness_group_lost(void *group) { return static_cast<Group *>(group)->lost; }

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
    static_cast<Group *>(group)->gather(*out, *tensor);
  });
}

// out = the sum over all ranks, which gradients flow through; a new tensor, or null.
at::Tensor *harness_group_differentiable_sum(void *group, at::Tensor *tensor) {
  at::Tensor *out = nullptr;
  caught([&] { out = new at::Tensor(Sum::apply(*tensor, reinterpret_cast<int64_t>(group))); });
  return out;
}

// Batch norm in training over the rows of all ranks, which may have different numbers of them; a new tensor, or null. Moves
// the running statistics by `momentum`, the variance by the unbiased one, to the same values on every rank.
at::Tensor *harness_group_batch_norm(void *group, at::Tensor *x, at::Tensor *weight, at::Tensor *bias, at::Tensor *running_mean,
                                     at::Tensor *running_var, int64_t ranks, double momentum, double eps) {
  at::Tensor *out = nullptr;
  caught([&] {
    auto &all = *static_cast<Group *>(group);
    int64_t channels = x->size(1);
    at::Tensor mean, var, count;
    {
      at::NoGradGuard off;
      auto [ours, spread] = at::batch_norm_update_stats(x->detach(), {}, {}, 0.0);
      auto options = ours.options().dtype(at::kDouble);
      auto rows = at::full({1}, static_cast<double>(x->numel() / channels), options);
      auto mine = at::cat({rows, ours.to(at::kDouble), spread.to(at::kDouble)}).unsqueeze(0);
      auto table = at::empty({ranks, mine.size(1)}, options);
      all.gather(table, mine);
      // Of all rows: the mean of means, the mean of variances and of the means' squared distances.
      auto counts = table.narrow(1, 0, 1);
      auto means = table.narrow(1, 1, channels), vars = table.narrow(1, 1 + channels, channels);
      count = counts.sum();
      mean = (counts * means).sum(0) / count;
      var = (counts * (vars + (means - mean).square())).sum(0) / count;
      auto move = [&](at::Tensor &running, const at::Tensor &now) {
        running.copy_(running.to(at::kDouble) * (1.0 - momentum) + now * momentum);
      };
      move(*running_mean, mean);
      move(*running_var, var * (count / (count - 1.0)));
      mean = mean.to(running_mean->scalar_type());
      var = var.to(running_var->scalar_type());
    }
    out = new at::Tensor(SharedNorm::apply(*x, *weight, *bias, mean, var, count, eps, reinterpret_cast<int64_t>(group)));
  });
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
      all.group->together([&] { finish(bucket.work); });
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
