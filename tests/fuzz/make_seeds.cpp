// Writes seeds in the binary formats: make_seeds FOLDER.
#include <filesystem>

#include "io/pickle.h"
#include "io/tensor_file.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::filesystem::path folder = argv[1];
  for (const char* format : {"safetensors", "torch", "pickle"})
    std::filesystem::create_directories(folder / format);
  const float floats[] = {1, 2, 3, 4, 5, 6};
  const seer::BFloat16 halves[] = {seer::to_bfloat16(1), seer::to_bfloat16(2)};
  const std::vector<seer::TensorToWrite> tensors = {{"a.weight", seer::DType::kF32, {2, 3}, floats},
                                                    {"b.weight", seer::DType::kBF16, {2}, halves}};
  seer::write_safetensors((folder / "safetensors" / "two").string(), tensors, {{"format", "pt"}});
  seer::write_torch((folder / "torch" / "two").string(), tensors);
  seer::write_file_atomically((folder / "pickle" / "strided").string(),
                              seer::pickle_tensors({{"a", {"0", seer::DType::kF32, 16, 1, {3, 2}, {2, 6}}},
                                                    {"b", {"1", seer::DType::kBF16, 3, 0, {3}, {1}}}}));
  using namespace std::string_literals;
  seer::write_file_atomically(
      (folder / "pickle" / "nested").string(),
      "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}q\x00("
      "\x8c\x04stepK\x03\x8c\x05modelccollections\nOrderedDict\n)Rq\x01"
      "\x8c\x01wctorch._utils\n_rebuild_parameter\n(ctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storage"
      "\x8c\x05torch\x8c\x0c"
      "FloatStorage\x93\x94\x8c\x01"
      "0\x8c\x03"
      "cpuK\x10tQK\x00K\x02\x85K\x01\x85\x89}tR\x88}tRs"
      "}\x8c\x09_metadata}sbuh\x01"
      "0."s);
}
