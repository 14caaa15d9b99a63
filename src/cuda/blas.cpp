#include "cuda/blas.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "cuda/device_array.h"

namespace seer::cuda {
namespace {

constexpr std::int64_t kWorkspaceBytes = 64 << 20;

/// The functions used, from the library that is found first.
struct Library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;

  static const Library& get() {
    static const Library library = open();
    return library;
  }

 private:
  static Library open() {
    const std::string name = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
    std::vector<std::string> places;
    if (const char* named = std::getenv("SEER_CUBLASLT"); named != nullptr && *named != '\0')
      places.emplace_back(named);
    places.push_back(name);
    if (const char* home = std::getenv("CUDA_HOME"); home != nullptr && *home != '\0')
      places.push_back(std::string(home) + "/lib64/" + name);
    places.push_back("/usr/local/cuda/lib64/" + name);
    void* handle = nullptr;
    for (const std::string& place : places) {
      handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle != nullptr) break;
    }
    SEER_CHECK(handle != nullptr,
               "--device cuda: cannot open {}; install CUDA's libcublas {}, or set SEER_CUBLASLT to the file",
               name, CUBLAS_VER_MAJOR);
    Library library;
    const auto load = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
      SEER_CHECK(function != nullptr, "{}: expected the function {}, found none", name, symbol);
    };
    load(library.create, "cublasLtCreate");
    load(library.destroy, "cublasLtDestroy");
    load(library.matmul, "cublasLtMatmul");
    load(library.heuristic, "cublasLtMatmulAlgoGetHeuristic");
    load(library.desc_create, "cublasLtMatmulDescCreate");
    load(library.desc_set, "cublasLtMatmulDescSetAttribute");
    load(library.layout_create, "cublasLtMatrixLayoutCreate");
    load(library.layout_set, "cublasLtMatrixLayoutSetAttribute");
    load(library.preference_create, "cublasLtMatmulPreferenceCreate");
    load(library.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    load(library.desc_destroy, "cublasLtMatmulDescDestroy");
    load(library.layout_destroy, "cublasLtMatrixLayoutDestroy");
    load(library.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    return library;
  }
};

void check(cublasStatus_t status, const char* what) {
  SEER_CHECK(status == CUBLAS_STATUS_SUCCESS, "matmul: cuBLASLt's {} failed with status {}", what,
             static_cast<int>(status));
}

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF16:
      return CUDA_R_16F;
    case DType::kF32:
      return CUDA_R_32F;
    default:
      fail("matmul: expected BF16, F16 or F32, found {}", name_of(dtype));
  }
}

using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                       std::int64_t, std::int64_t, std::int64_t, int, bool, bool, DType, DType, bool, bool>;

/// What is worked out once for a shape; some hundred bytes, kept as long as the Blas.
struct Plan {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

}  // namespace

struct Blas::Impl {
  const Library& library = Library::get();
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  DeviceArray<std::byte> workspace{kWorkspaceBytes};
  std::map<Key, Plan> plans;

  cublasLtMatrixLayout_t layout(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t leading,
                                std::int64_t stride, std::int32_t batch) const {
    cublasLtMatrixLayout_t made = nullptr;
    check(library.layout_create(&made, data_type(dtype), static_cast<std::uint64_t>(rows),
                                static_cast<std::uint64_t>(cols), leading),
          "layout");
    check(library.layout_set(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof(batch)), "layout");
    check(library.layout_set(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof(stride)),
          "layout");
    return made;
  }

  /// cuBLASLt thinks in columns: a row-major matrix is its transpose there, so c^T = op(b)^T op(a)^T.
  Plan make_plan(const MatmulParams& p) const {
    Plan plan;
    check(library.desc_create(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      check(library.desc_set(plan.desc, attribute, &value, sizeof(value)), "descriptor");
    };
    const std::int32_t transpose_first = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const std::int32_t transpose_second = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(CUBLASLT_MATMUL_DESC_TRANSA, transpose_first);
    set(CUBLASLT_MATMUL_DESC_TRANSB, transpose_second);
    if (p.bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      const std::int32_t type = data_type(p.out_dtype);
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
    }
    plan.first = p.transpose_b ? layout(p.dtype, p.k, p.n, p.ldb, p.stride_b, p.batch)
                               : layout(p.dtype, p.n, p.k, p.ldb, p.stride_b, p.batch);
    plan.second = p.transpose_a ? layout(p.dtype, p.m, p.k, p.lda, p.stride_a, p.batch)
                                : layout(p.dtype, p.k, p.m, p.lda, p.stride_a, p.batch);
    plan.out = layout(p.out_dtype, p.n, p.m, p.ldc, p.stride_c, p.batch);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = library.heuristic(handle, plan.desc, plan.first, plan.second, plan.out,
                                                    plan.out, preference, 1, &result, &found);
    SEER_CHECK(status == CUBLAS_STATUS_SUCCESS && found > 0,
               "matmul: cuBLASLt has no kernel for m {}, n {}, k {}, {} to {}, leading dimensions {}, {}, {} "
               "(status {})",
               p.m, p.n, p.k, name_of(p.dtype), name_of(p.out_dtype), p.lda, p.ldb, p.ldc,
               static_cast<int>(status));
    plan.algorithm = result.algo;
    return plan;
  }
};

Blas::Blas() : impl_(std::make_unique<Impl>()) {
  const Library& library = impl_->library;
  check(library.create(&impl_->handle), "handle");
  check(library.preference_create(&impl_->preference), "preference");
  const std::uint64_t bytes = kWorkspaceBytes;
  check(library.preference_set(impl_->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                               sizeof(bytes)),
        "preference");
}

Blas::~Blas() {
  const Library& library = impl_->library;
  for (const auto& [key, plan] : impl_->plans) {
    library.desc_destroy(plan.desc);
    for (const cublasLtMatrixLayout_t layout : {plan.first, plan.second, plan.out})
      library.layout_destroy(layout);
  }
  library.preference_destroy(impl_->preference);
  library.destroy(impl_->handle);
}

void Blas::matmul(const MatmulParams& p, Stream stream) {
  if (p.m == 0 || p.n == 0 || p.batch == 0) return;
  const Key key{p.m,           p.n,           p.k,        p.lda,       p.ldb,
                p.ldc,         p.stride_a,    p.stride_b, p.stride_c,  p.batch,
                p.transpose_a, p.transpose_b, p.dtype,    p.out_dtype, p.bias != nullptr,
                p.beta != 0};
  auto found = impl_->plans.find(key);
  if (found == impl_->plans.end()) found = impl_->plans.emplace(key, impl_->make_plan(p)).first;
  Plan& plan = found->second;
  if (p.bias != nullptr)
    check(impl_->library.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof(p.bias)),
          "descriptor");
  check(impl_->library.matmul(impl_->handle, plan.desc, &p.alpha, p.b, plan.first, p.a, plan.second, &p.beta,
                              p.c, plan.out, p.c, plan.out, &plan.algorithm, impl_->workspace.data(),
                              kWorkspaceBytes, static_cast<cudaStream_t>(stream)),
        "product");
}

}  // namespace seer::cuda
