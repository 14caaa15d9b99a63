#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "io/files.h"
#include "io/pickle.h"
#include "io/tensor_file.h"
#include "io/zip_archive.h"
#include "support/errors.h"
#include "support/golden.h"

namespace seer {
namespace {

using test::as_bytes;
using test::error_names;
using test::TemporaryFolder;

/// An archive of this pickle and storages 0, 1, ...
std::string archive(std::string_view pickle, const std::vector<std::string>& storages = {},
                    std::string_view byteorder = "little") {
  std::string bytes;
  ZipWriter zip(
      [&](const void* data, std::size_t size) { bytes.append(static_cast<const char*>(data), size); });
  zip.add("x/data.pkl", pickle);
  zip.add("x/byteorder", byteorder);
  for (std::size_t i = 0; i < storages.size(); ++i) zip.add(fmt::format("x/data/{}", i), storages[i]);
  zip.finish();
  return bytes;
}

TensorStore parse(const std::string& bytes) {
  auto copy = std::make_shared<std::string>(bytes);
  return TensorStore::parse_torch(as_bytes(*copy), "x.pth", copy);
}

::testing::AssertionResult refused(const std::string& bytes, std::initializer_list<std::string_view> parts) {
  return error_names([&] { parse(bytes); }, parts);
}

/// The bytes of a literal with zeros inside.
template <std::size_t N>
std::string bytes(const char (&text)[N]) {
  return std::string(text, N - 1);
}

std::string floats(std::initializer_list<float> values) {
  return std::string(reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(float));
}

PickledTensor float_tensor(std::int64_t storage_size, std::int64_t offset, std::vector<std::int64_t> shape,
                           std::vector<std::int64_t> strides) {
  return {"0", DType::kF32, storage_size, offset, std::move(shape), std::move(strides)};
}

TEST(TorchArchive, ReadsTheReferencesGate) {
  const auto path = test::golden_path("reference_on_pico/attn_gate_weights.pth");
  if (path.empty()) GTEST_SKIP() << "reference_on_pico/attn_gate_weights.pth is absent";
  const TensorStore store = TensorStore::open_torch(path.string());
  EXPECT_EQ(store.tensors().size(), 8u);
  const TensorView& weight = store.get("model.layers.3.self_attn.attn_gate.mask_linear_k.weight",
                                       std::vector<std::int64_t>{8, 384, 128});
  EXPECT_EQ(weight.dtype, DType::kBF16);
  double sum = 0;
  for (const float x : weight.to_floats()) sum += std::abs(x);
  EXPECT_GT(sum / static_cast<double>(weight.num_elements()), 1e-3);
  EXPECT_LT(sum / static_cast<double>(weight.num_elements()), 1);
}

TEST(TorchArchive, ReadsWhatItWrites) {
  const TemporaryFolder folder;
  const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
  const std::vector<BFloat16> halves = {to_bfloat16(7), to_bfloat16(-0.5f)};
  const std::uint8_t flag = 1;
  const std::vector<TensorToWrite> tensors = {{"floats", DType::kF32, {2, 3}, floats.data()},
                                              {"halves", DType::kBF16, {2}, halves.data()},
                                              {"flag", DType::kBool, {}, &flag},
                                              {"empty", DType::kI64, {0, 4}, nullptr}};
  const std::string path = folder.path("a.pth");
  write_torch(path, tensors);
  const TensorStore store = TensorStore::open_torch(path);
  EXPECT_EQ(store.tensors().size(), 4u);
  EXPECT_EQ(store.get("floats", std::vector<std::int64_t>{2, 3}).to_floats(), floats);
  EXPECT_EQ(store.get("halves").to_floats(), (std::vector<float>{7, -0.5f}));
  EXPECT_EQ(store.get("flag").dtype, DType::kBool);
  EXPECT_EQ(store.get("flag").shape.size(), 0u);
  EXPECT_EQ(store.get("empty").num_elements(), 0);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(store.get("floats").bytes.data()) % 64, 0u);

  const std::string before = read_file(path);
  write_torch(path, tensors);
  EXPECT_EQ(read_file(path), before) << "equal tensors give equal files";
}

TEST(TorchArchive, GathersStridedTensors) {
  const auto read = [](const PickledTensor& tensor) {
    return parse(archive(pickle_tensors({{"a", tensor}}), {floats({0, 1, 2, 3, 4, 5})})).get("a").to_floats();
  };
  EXPECT_EQ(read(float_tensor(6, 0, {2, 3}, {3, 1})), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(read(float_tensor(6, 0, {3, 2}, {1, 3})), (std::vector<float>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(read(float_tensor(6, 1, {2, 2}, {3, 1})), (std::vector<float>{1, 2, 4, 5}));
  EXPECT_EQ(read(float_tensor(6, 2, {1, 3}, {99, 1})), (std::vector<float>{2, 3, 4}));
  EXPECT_EQ(read(float_tensor(6, 5, {}, {})), (std::vector<float>{5}));
  EXPECT_EQ(read(float_tensor(6, 0, {0, 7}, {7, 1})), (std::vector<float>{}));
  EXPECT_EQ(read(float_tensor(6, 4, {3}, {0})), (std::vector<float>{4, 4, 4}));
}

TEST(TorchArchive, RefusesTensorsOutsideTheirStorage) {
  const auto bad = [](const PickledTensor& tensor, std::initializer_list<std::string_view> parts) {
    return refused(archive(pickle_tensors({{"a", tensor}}), {floats({0, 1, 2, 3, 4, 5})}), parts);
  };
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  EXPECT_TRUE(bad(float_tensor(7, 0, {1}, {1}), {"x.pth", "'a'", "7 elements", "24 bytes"}));
  EXPECT_TRUE(bad(float_tensor(kHuge, 0, {1}, {1}), {"'a'", "storage"}));
  EXPECT_TRUE(bad(float_tensor(6, 0, {7}, {1}), {"'a'", "up to 7", "found 6"}));
  EXPECT_TRUE(bad(float_tensor(6, 6, {1}, {1}), {"'a'", "up to 7"}));
  EXPECT_TRUE(bad(float_tensor(6, kHuge, {2}, {kHuge}), {"'a'", "63 bits"}));
  EXPECT_TRUE(bad(float_tensor(6, 0, {3}, {kHuge}), {"'a'", "63 bits"}));
  EXPECT_TRUE(bad(float_tensor(6, 0, {kHuge, 4}, {0, 0}), {"'a'", "63 bits"}));
  EXPECT_TRUE(bad(float_tensor(6, 0, {kHuge}, {0}), {"'a'", "overlap"}));
  EXPECT_TRUE(bad(float_tensor(6, 0, {2}, {-1}), {"x.pth", "0 or more, found -1"}));
  EXPECT_TRUE(bad(float_tensor(6, -1, {2}, {1}), {"x.pth", "0 or more, found -1"}));
  PickledTensor absent = float_tensor(6, 0, {6}, {1});
  absent.storage_key = "../1";
  EXPECT_TRUE(bad(absent, {"'a'", "'x/data/../1'", "missing"}));

  std::vector<std::pair<std::string, PickledTensor>> many;
  for (int i = 0; i < 1000; ++i)
    many.emplace_back(std::to_string(i), float_tensor(300, 0, {150, 2}, {1, 150}));
  EXPECT_TRUE(refused(archive(pickle_tensors(many), {std::string(1200, 'x')}), {"share storages too often"}));
}

TEST(TorchArchive, UnderstandsDictsAsTorchSavesThem) {
  // {'step': 3, 'loss': 0.5, 'model': OrderedDict({'w': Parameter}) with _metadata}, protocol 4 with memo.
  const std::string tensor = bytes(
      "c"
      "torch._utils\n_rebuild_tensor_v2\n("
      "(\x8c\x07storage\x8c\x05torch\x8c\x0c"
      "FloatStorage\x93\x94"
      "\x8c\x01"
      "0\x8c\x03"
      "cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89"
      "ccollections\nOrderedDict\n)RtR");
  const std::string pickle =
      bytes("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}q\x00(X\x04\x00\x00\x00stepK\x03\x8c\x04lossG") +
      std::string(8, 'x') + bytes("\x8c\x05model") + bytes("ccollections\nOrderedDict\n)Rq\x01(\x8c\x01w") +
      bytes("ctorch._utils\n_rebuild_parameter\n(") + tensor +
      bytes(
          "\x88"
          "ccollections\nOrderedDict\n)RtR"
          "u}\x8c\x09_metadata}\x8c\x07version\x8a\x01\x01ssbu.");
  const TensorStore store = parse(archive(pickle, {floats({1, 2})}));
  EXPECT_EQ(store.get("w").to_floats(), (std::vector<float>{1, 2}));

  EXPECT_EQ(parse(archive(bytes("\x80\x02}."))).tensors().size(), 0u);
  EXPECT_TRUE(refused(archive(bytes("\x80\x02].")), {"x.pth", "expected a dict of tensors"}));
  EXPECT_TRUE(refused(archive(bytes("\x80\x02}\x8c\x01"
                                    "aK\x01s.")),
                      {"x.pth", "'a'", "expected a tensor"}));
  EXPECT_TRUE(refused(archive(bytes("\x80\x02}K\x01") + tensor + "s.", {floats({1, 2})}),
                      {"x.pth", "strings as names"}));
  EXPECT_TRUE(refused(
      archive(pickle_tensors({{"a", float_tensor(1, 0, {1}, {1})}, {"a", float_tensor(1, 0, {1}, {1})}}),
              {floats({1})}),
      {"x.pth", "'a'", "twice"}));
}

TEST(TorchArchive, RunsNothing) {
  const std::pair<std::string, const char*> cases[] = {
      {bytes("cos\nsystem\n(S'touch /tmp/x'\ntR."), "'os system'"},
      {bytes("\x80\x02"
             "cposix\nsystem\n\x8c\x04true\x85R."),
       "'posix system'"},
      {bytes("\x80\x04\x8c\x08"
             "builtins\x8c\x04"
             "eval\x93\x8c\x01x\x85R."),
       "'builtins eval'"},
      {bytes("\x80\x02"
             "ctorch._utils\n_rebuild_tensor_v2 \n."),
       "'torch._utils _rebuild_tensor_v2 '"},
      {bytes("\x80\x02(i__main__\nX\n."), "INST"},
      {bytes("\x80\x02(ccollections\nOrderedDict\no."), "OBJ"},
      {bytes("\x80\x02"
             "ccollections\nOrderedDict\n)\x81."),
       "NEWOBJ"},
      {bytes("\x80\x02\x82\x01."), "EXT"},
      {bytes("\x80\x02Px\n."), "PERSID"},
      {bytes("\x80\x02"
             "ccollections\nOrderedDict\nK\x01\x85R."),
       "without arguments"},
      {bytes("\x80\x02K\x01)R."), "a global to call"},
      {bytes("\x80\x02"
             "ctorch\nFloatStorage\n)R."),
       "cannot be called"},
      {bytes("\x80\x02K\x01}b."), "set attributes"},
      {bytes("\x80\x01."), "protocol"},
      {bytes(""), "more bytes"},
      {bytes("."), "a value on the stack"},
      {bytes("(."), "a value on the stack"},
      {bytes("t."), "a mark"},
      {bytes("h\x01."), "memo 1 is empty"},
      {bytes("X\xff\xff\xff\xff."), "4294967295 more bytes"},
      {bytes("\x8a\x09"
             "123456789."),
       "64 bits"},
      {bytes("]K\x01K\x02K\x03"
             "e."),
       "a mark"},
      {bytes("}(K\x01u."), "in pairs"},
      {bytes("cos"), "a line"},
      {bytes("K\x01Q."), "persistent id"},
      {bytes(")Q."), "persistent id"},
  };
  for (const auto& [pickle, part] : cases) EXPECT_TRUE(refused(archive(pickle), {"x.pth", part})) << part;
}

TEST(TorchArchive, SurvivesDeepAndLargePickles) {
  const std::string nested = std::string(500'000, '}') + std::string(499'999, '0') + ".";
  EXPECT_EQ(parse(archive(nested)).tensors().size(), 0u);
  EXPECT_TRUE(refused(archive(std::string(2'000'000, '}') + "."), {"at most 1000000 values"}));
  EXPECT_TRUE(refused(archive(std::string(5'000'000, '(') + "."), {"a value on the stack"}));
  std::string tuples = ")";
  for (int i = 0; i < 500'000; ++i) tuples += "\x85";
  EXPECT_TRUE(refused(archive(tuples + "."), {"expected a dict"}));
  // A dict that holds itself.
  EXPECT_TRUE(refused(archive(bytes("}q\x00\x8c\x01"
                                    "ah\x00s.")),
                      {"expected a dict of tensors"}));
}

TEST(TorchArchive, RefusesDamagedArchives) {
  const std::string good = archive(pickle_tensors({{"a", float_tensor(2, 0, {2}, {1})}}), {floats({1, 2})});
  EXPECT_EQ(parse(good).get("a").to_floats(), (std::vector<float>{1, 2}));
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_THROW(parse(good.substr(0, size)), Error) << size;
  for (std::size_t at = 0; at < good.size(); ++at) {  // any byte may be wrong: an Error or the same tensor
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
    try {
      const TensorStore store = parse(damaged);
      if (store.contains("a")) {
        EXPECT_EQ(store.get("a").to_floats(), (std::vector<float>{1, 2})) << at;
      }
    } catch (const Error&) {
    }
  }
  EXPECT_TRUE(refused("not a zip archive, but text", {"x.pth", "expected a zip archive"}));
  EXPECT_TRUE(refused(archive("", {}, "big"), {"byteorder", "'big'"}));
  std::string flipped = good;
  flipped[flipped.find("FloatStorage")] = 'f';
  EXPECT_TRUE(refused(flipped, {"'x/data.pkl'", "checksum"}));
  const std::string without = [] {
    std::string text;
    ZipWriter zip(
        [&](const void* data, std::size_t size) { text.append(static_cast<const char*>(data), size); });
    zip.add("readme", "x");
    zip.finish();
    return text;
  }();
  EXPECT_TRUE(refused(without, {"data.pkl"}));
  EXPECT_TRUE(error_names([] { TensorStore::open_torch("/nowhere.pth"); }, {"/nowhere.pth", "cannot open"}));
}

TEST(ZipArchive, ReadsZip64) {
  const auto number = [](std::uint64_t value, int size) {
    return std::string(reinterpret_cast<const char*>(&value), static_cast<std::size_t>(size));
  };
  const std::string data = "hello", crc = number(crc32(as_bytes(data)), 4), all = number(0xffffffff, 4);
  const std::string local = number(0x04034b50, 4) + std::string(10, '\0') + crc + all + all + number(1, 2) +
                            number(0, 2) + "a" + data;
  const std::string extra = number(7, 2) + number(1, 2) + "?" + number(1, 2) + number(24, 2) + number(5, 8) +
                            number(5, 8) + number(0, 8);
  const std::string central = number(0x02014b50, 4) + std::string(12, '\0') + crc + all + all + number(1, 2) +
                              number(extra.size(), 2) + std::string(10, '\0') + all + "a" + extra;
  const std::string end64 = number(0x06064b50, 4) + number(44, 8) + std::string(12, '\0') + number(1, 8) +
                            number(1, 8) + number(central.size(), 8) + number(local.size(), 8);
  const std::string locator =
      number(0x07064b50, 4) + number(0, 4) + number(local.size() + central.size(), 8) + number(1, 4);
  const std::string end = number(0x06054b50, 4) + std::string(4, '\0') + number(0xffff, 2) +
                          number(0xffff, 2) + all + all + number(0, 2);
  const std::string zip = local + central + end64 + locator + end;
  const auto entries = read_zip(as_bytes(zip), "x.zip");
  ASSERT_EQ(entries.size(), 1u);
  const auto read = entries.at("a").data;
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(read.data()), read.size()), data);
  for (std::size_t size = 0; size < zip.size(); ++size)
    EXPECT_THROW(read_zip(as_bytes(zip.substr(0, size)), "x.zip"), Error) << size;
}

TEST(ZipArchive, Crc32) {
  EXPECT_EQ(crc32(as_bytes("123456789")), 0xcbf43926u);  // the check value of its definition
  EXPECT_EQ(crc32(as_bytes("")), 0u);
}

}  // namespace
}  // namespace seer
