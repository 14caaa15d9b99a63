#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "io/files.h"
#include "io/mapped_file.h"
#include "io/tensor_file.h"
#include "support/errors.h"
#include "support/golden.h"

namespace seer {
namespace {

using test::as_bytes;
using test::error_names;
using test::TemporaryFolder;

/// A file with this header (its size in front) and `data_size` bytes 0, 1, 2, ... of data.
std::string image(const std::string& header, std::size_t data_size) {
  std::string bytes(8, '\0');
  const std::uint64_t size = header.size();
  std::memcpy(bytes.data(), &size, sizeof size);
  bytes += header;
  for (std::size_t i = 0; i < data_size; ++i) bytes += static_cast<char>(i);
  return bytes;
}

TensorStore parse(const std::string& bytes) {
  auto copy = std::make_shared<std::string>(bytes);
  return TensorStore::parse_safetensors(as_bytes(*copy), "x.safetensors", copy);
}

::testing::AssertionResult refused(const std::string& header, std::size_t data_size,
                                   std::initializer_list<std::string_view> parts) {
  return error_names([&] { parse(image(header, data_size)); }, parts);
}

TEST(Safetensors, ReadsWhatItWrites) {
  const TemporaryFolder folder;
  const std::vector<float> floats = {1.5f, -2.0f, 0.25f, 3.0f, 4.0f, 5.0f};
  const std::vector<std::uint8_t> bytes = {1, 2, 3};
  const std::vector<BFloat16> halves = {to_bfloat16(7), to_bfloat16(-0.5f)};
  const std::vector<std::int64_t> ids = {-1};
  const std::vector<TensorToWrite> tensors = {{"bytes", DType::kU8, {3}, bytes.data()},
                                              {"halves", DType::kBF16, {2, 1}, halves.data()},
                                              {"floats", DType::kF32, {2, 3}, floats.data()},
                                              {"empty", DType::kF32, {0, 4}, nullptr},
                                              {"scalar", DType::kI64, {}, ids.data()}};
  const std::string path = folder.path("a.safetensors");
  write_safetensors(path, tensors, {{"format", "pt"}});

  const TensorStore store = TensorStore::open_safetensors(path);
  EXPECT_EQ(store.tensors().size(), 5u);
  EXPECT_EQ(store.metadata().at("format"), "pt");
  const auto read = store.get("floats", std::vector<std::int64_t>{2, 3}).as<float>();
  EXPECT_TRUE(std::equal(read.begin(), read.end(), floats.begin(), floats.end()));
  EXPECT_EQ(store.get("bytes").as<std::uint8_t>()[2], 3);
  EXPECT_EQ(store.get("halves").to_floats(), (std::vector<float>{7, -0.5f}));
  EXPECT_EQ(store.get("scalar").num_elements(), 1);
  EXPECT_EQ(store.get("scalar").as<std::int64_t>()[0], -1);
  EXPECT_EQ(store.get("empty").num_elements(), 0);

  EXPECT_TRUE(error_names([&] { store.get("absent"); }, {"a.safetensors", "'absent'", "missing"}));
  EXPECT_TRUE(error_names(
      [&] {
        store.get("floats", std::vector<std::int64_t>{3, 2});
      },
      {"a.safetensors", "'floats'", "expected shape [3, 2], found [2, 3]"}));
  EXPECT_TRUE(error_names([&] { store.get("floats").as<double>(); }, {"'floats'", "F64", "F32"}));
  EXPECT_TRUE(error_names([&] { store.get("bytes").to_floats(); }, {"'bytes'", "U8"}));
}

TEST(Safetensors, AlignsTensorsBehindAnyHeader) {
  for (int padding = 0; padding < 8; ++padding) {
    const std::string header =
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})" + std::string(padding, ' ');
    const TensorStore store = parse(image(header, 8));
    const auto values = store.get("a").as<float>();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(values.data()) % alignof(float), 0u);
    std::uint32_t bits = 0;
    std::memcpy(&bits, values.data() + 1, sizeof bits);
    EXPECT_EQ(bits, 0x07060504u);
  }
}

TEST(Safetensors, OpensTheEmbeddedModel) {
  const TensorStore store = TensorStore::open_model_folder(test::embedded_model().string());
  EXPECT_TRUE(store.contains("model.embed_tokens.weight"));
  EXPECT_FALSE(store.contains("model.embed_tokens.bias"));
}

TEST(Safetensors, RefusesBadHeaders) {
  EXPECT_TRUE(error_names([] { parse(""); }, {"x.safetensors", "0 bytes"}));
  EXPECT_TRUE(error_names([] { parse("1234567"); }, {"x.safetensors", "7 bytes"}));
  EXPECT_TRUE(error_names([] { parse(std::string(8, '\xff')); },
                          {"x.safetensors", "header size", "18446744073709551615"}));
  EXPECT_TRUE(
      error_names([] { parse(image("{}", 0).substr(0, 9)); }, {"header size", "at most 1", "found 2"}));
  EXPECT_TRUE(refused("", 0, {"header", "invalid JSON"}));
  EXPECT_TRUE(refused("[]", 0, {"header", "expected a JSON object, found array"}));
  EXPECT_TRUE(refused("{\"a\":", 0, {"header", "invalid JSON"}));
  EXPECT_TRUE(refused("{\"a\xff\":1}", 0, {"header", "invalid JSON"}));
  EXPECT_TRUE(refused(std::string(1'000'000, '['), 0, {"header", "nested deeper than 64"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                      R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                      1, {"occurs twice"}));
  EXPECT_TRUE(refused(R"({"__metadata__":{"a":1}})", 0, {"__metadata__", "'a'", "expected a string"}));
}

TEST(Safetensors, RefusesBadTensors) {
  EXPECT_TRUE(refused(R"({"a":1})", 0, {"'a'", "expected an object, found number"}));
  EXPECT_TRUE(refused(R"({"a":{"shape":[],"data_offsets":[0,1]}})", 1, {"'a'", "dtype is missing"}));
  EXPECT_TRUE(refused(R"({"a\n":{"dtype":"F8","shape":[],"data_offsets":[0,1]}})", 1,
                      {"'a\\n'", "dtype: expected F64", "'F8'"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1,
                      {"'a'", "shape: expected a non-negative integer, found -1"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[1e3],"data_offsets":[0,1]}})", 1, {"'a'", "shape"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
                      {"'a'", "shape", "64 bits"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1,
                      {"'a'", "shape"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, {"'a'", "two integers"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, {"'a'", "[1, 0]"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", 8,
                      {"'a'", "8 bytes of data", "[0, 9]"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
                      {"'a'", "expected 8 bytes", "found 4"}));
}

TEST(Safetensors, RefusesOverlapsAndHoles) {
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                      R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                      3, {"'b'", "overlap"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                      R"("b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
                      4, {"'b'", "expected 2", "found 3"}));
  EXPECT_TRUE(refused(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 5,
                      {"expected 2 bytes of data", "found 5"}));
}

TEST(Safetensors, ReadsShards) {
  const TemporaryFolder folder;
  const float one = 1, two = 2;
  write_safetensors(folder.path("model-1.safetensors"),
                    std::vector<TensorToWrite>{{"a", DType::kF32, {1}, &one}});
  write_safetensors(folder.path("model-2.safetensors"),
                    std::vector<TensorToWrite>{{"b", DType::kF32, {1}, &two}});
  const std::string name = "model.safetensors.index.json";
  const auto open = [&] { return TensorStore::open_model_folder(folder.folder().string()); };

  EXPECT_TRUE(error_names([&] { open(); }, {"expected model.safetensors or", name}));
  folder.write(name, R"({"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})");
  const TensorStore store = open();
  EXPECT_EQ(store.get("a").as<float>()[0], 1);
  EXPECT_EQ(store.get("b").as<float>()[0], 2);

  folder.write(name, R"({"weight_map":{"c":"model-1.safetensors"}})");
  EXPECT_TRUE(error_names([&] { open(); }, {"model-1.safetensors", "'c'", "missing"}));
  folder.write(name, R"({"weight_map":{"a":"model-3.safetensors"}})");
  EXPECT_TRUE(error_names([&] { open(); }, {"model-3.safetensors", "cannot open"}));
  folder.write(name, R"({"weight_map":{"a":"../model-1.safetensors"}})");
  EXPECT_TRUE(error_names([&] { open(); }, {name, "'a'", "'../model-1.safetensors'"}));
  folder.write(name, R"({"weight_map":{"a":1}})");
  EXPECT_TRUE(error_names([&] { open(); }, {name, "'a'", "expected a file name"}));
  folder.write(name, R"({})");
  EXPECT_TRUE(error_names([&] { open(); }, {name, "weight_map"}));
  EXPECT_TRUE(error_names([] { TensorStore::open_model_folder("/nowhere"); }, {"/nowhere", "nothing"}));
}

TEST(Files, NameThePathThatCannotBeRead) {
  const TemporaryFolder folder;
  EXPECT_TRUE(error_names([&] { MappedFile::open(folder.path("absent")); }, {"absent", "cannot open"}));
  EXPECT_TRUE(error_names([&] { MappedFile::open(folder.folder().string()); }, {"a folder"}));
  EXPECT_TRUE(error_names([&] { read_file(folder.path("absent")); }, {"absent", "cannot open"}));
  EXPECT_TRUE(error_names([&] { read_file(folder.folder().string()); }, {"a folder"}));
  EXPECT_TRUE(MappedFile::open(folder.write("empty", ""))->bytes().empty());
  const std::string text("a\0b\n", 4);
  EXPECT_EQ(read_file(folder.write("text", text)), text);
}

TEST(Files, AreReplacedWhole) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.json", "old");
  write_file_atomically(path, "new");
  EXPECT_EQ(read_file(path), "new");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.folder()), {}), 1);

  std::filesystem::create_symlink("a.json", folder.path("link"));
  write_file_atomically(folder.path("link"), "through the link");
  EXPECT_EQ(read_file(path), "through the link");
  EXPECT_TRUE(std::filesystem::is_symlink(folder.path("link")));

  EXPECT_TRUE(error_names([&] { write_file_atomically(folder.path("no/where"), ""); }, {"no/where"}));
  EXPECT_TRUE(error_names([&] { write_file_atomically(folder.folder().string(), ""); }, {"a folder"}));
}

/// Lets no file of this process grow beyond `bytes`, as a full disk would.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int);
};

TEST(Files, SurviveAFullDisk) {
  EXPECT_TRUE(error_names([] { write_file_atomically("/dev/full", "x"); }, {"/dev/full", "No space left"}));

  const TemporaryFolder folder;
  const std::string path = folder.path("a.safetensors");
  const std::vector<float> values(100'000, 1.0f);
  write_safetensors(path, std::vector<TensorToWrite>{{"a", DType::kF32, {10}, values.data()}});
  {
    const FileSizeLimit limit(100'000);
    EXPECT_TRUE(error_names(
        [&] {
          write_safetensors(path, std::vector<TensorToWrite>{{"a", DType::kF32, {100'000}, values.data()}});
        },
        {"a.safetensors", "cannot write", "too large"}));
  }
  EXPECT_EQ(TensorStore::open_safetensors(path).get("a").num_elements(), 10);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.folder()), {}), 1);
}

TEST(Safetensors, RefusesNamesThatAreTaken) {
  const TemporaryFolder folder;
  const float x = 0;
  const TensorToWrite tensor{"a", DType::kF32, {1}, &x};
  EXPECT_TRUE(error_names(
      [&] {
        write_safetensors(folder.path("a"), std::vector<TensorToWrite>{tensor, tensor});
      },
      {"'a'", "taken"}));
  EXPECT_FALSE(std::filesystem::exists(folder.path("a")));
}

}  // namespace
}  // namespace seer
