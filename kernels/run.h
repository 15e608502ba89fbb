// What a kernel needs of onnxruntime while it runs: the session's threads, and scratch memory from its arena.
#pragma once
#include <onnxruntime_c_api.h>
#include <sched.h>

#include <cstddef>

namespace edge_vlm {

extern const OrtApi* api;

// Drops the status of a call that fails only where a pointer of ours is null.
inline void Ignore(OrtStatus* status) {
  if (status) api->ReleaseStatus(status);
}

// The cores that this process may run on; onnxruntime does not tell how many threads a session has.
inline size_t NumCores() {
  cpu_set_t cores;
  int count = sched_getaffinity(0, sizeof(cores), &cores) ? 1 : CPU_COUNT(&cores);
  return count > 1 ? static_cast<size_t>(count) : 1;
}

constexpr size_t kBatches = 256;  // parts of a loop: many, so that other threads take over from one that is held up

class Run {
 public:
  explicit Run(OrtKernelContext* context) : context_(context) {
    Ignore(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
    Ignore(api->KernelContext_GetAllocator(context, memory_, &allocator_));
  }
  ~Run() {
    api->ReleaseAllocator(allocator_);
    api->ReleaseMemoryInfo(memory_);
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Runs f(0) ... f(count - 1) on the session's threads.
  template <class F>
  void For(size_t count, const F& f) const {
    auto call = [](void* data, size_t index) { (*static_cast<const F*>(data))(index); };
    Ignore(api->KernelContext_ParallelFor(context_, call, count, count < kBatches ? count : kBatches, const_cast<F*>(&f)));
  }

  OrtAllocator* allocator() const { return allocator_; }

 private:
  OrtKernelContext* context_;
  OrtMemoryInfo* memory_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
};

// Uninitialised memory of `count` elements from a cache line on; the end of the scope gives it back.
template <class T>
class Scratch {
 public:
  Scratch(const Run& run, size_t count) : allocator_(run.allocator()) {
    base_ = allocator_->Alloc(allocator_, count * sizeof(T) + 64);
    data_ = reinterpret_cast<T*>((reinterpret_cast<size_t>(base_) + 63) & ~size_t{63});
  }
  ~Scratch() { allocator_->Free(allocator_, base_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  OrtAllocator* allocator_;
  void* base_;
  T* data_;
};

}  // namespace edge_vlm
