// Judges a PNG by an exported run, without Python:
//
//   detect bottle.onnx photograph.png map.png
//
// Prints the score and the verdict, and writes the anomaly map as a gray PNG on the run's scale.
// All that it needs of the run stands in the metadata of the ONNX file.
#include <onnxruntime_c_api.h>

#include <array>
#include <exception>
#include <iostream>
#include <limits>

#include "png_file.h"

namespace {

const OrtApi* api = nullptr;  // set first of all by main

void check(OrtStatus* status) {
  if (!status) return;
  const std::string message = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw std::runtime_error("onnxruntime: " + message);
}

// Gives an object of onnxruntime back at the end of a scope.
template <typename T>
struct Owned {
  T* value = nullptr;
  void (*release)(T*);
  explicit Owned(void (*release_by)(T*)) : release(release_by) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { if (value) release(value); }
};

class Detector {
 public:
  explicit Detector(const std::string& path) {
    check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "detect", &environment_.value));
    check(api->CreateSessionOptions(&options_.value));
#ifdef _WIN32  // where onnxruntime takes wide characters; enough for names of ASCII
    const std::wstring name(path.begin(), path.end());
#else
    const std::string& name = path;
#endif
    check(api->CreateSession(environment_.value, name.c_str(), options_.value, &session_.value));
    check(api->SessionGetModelMetadata(session_.value, &metadata_.value));
    check(api->GetAllocatorWithDefaultOptions(&allocator_));
    check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_.value));
  }

  // What the run says of itself under a key, as JSON.
  std::string about(const char* key) const {
    char* text = nullptr;
    check(api->ModelMetadataLookupCustomMetadataMap(metadata_.value, allocator_, key, &text));
    if (!text) throw std::runtime_error(std::string("the model has no ") + key +
                                        " in its metadata; write it by jaxad export");
    const std::string copy = text;
    check(api->AllocatorFree(allocator_, text));
    return copy;
  }

  struct Result {
    float score;
    std::size_t rows;
    std::vector<float> map;
  };

  Result judge(Picture& picture) const {
    const std::array<int64_t, 4> shape{1, static_cast<int64_t>(picture.height),
                                       static_cast<int64_t>(picture.width), 3};
    Owned<OrtValue> image(api->ReleaseValue), score(api->ReleaseValue), map(api->ReleaseValue);
    check(api->CreateTensorWithDataAsOrtValue(
        memory_.value, picture.pixels.data(), picture.pixels.size(), shape.data(), shape.size(),
        ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &image.value));
    const char* const names[] = {"image"};
    const char* const wanted[] = {"score", "map"};
    const OrtValue* const given[] = {image.value};
    OrtValue* found[] = {nullptr, nullptr};
    check(api->Run(session_.value, nullptr, names, given, 1, wanted, 2, found));
    score.value = found[0];
    map.value = found[1];

    Owned<OrtTensorTypeAndShapeInfo> info(api->ReleaseTensorTypeAndShapeInfo);
    check(api->GetTensorTypeAndShape(map.value, &info.value));
    std::array<int64_t, 3> sides{};
    check(api->GetDimensions(info.value, sides.data(), sides.size()));
    void *first = nullptr, *values = nullptr;
    check(api->GetTensorMutableData(score.value, &first));
    check(api->GetTensorMutableData(map.value, &values));
    const float* begin = static_cast<const float*>(values);
    return {*static_cast<const float*>(first), static_cast<std::size_t>(sides[1]),
            std::vector<float>(begin, begin + sides[1] * sides[2])};
  }

 private:
  Owned<OrtEnv> environment_{api->ReleaseEnv};
  Owned<OrtSessionOptions> options_{api->ReleaseSessionOptions};
  Owned<OrtSession> session_{api->ReleaseSession};
  Owned<OrtModelMetadata> metadata_{api->ReleaseModelMetadata};
  Owned<OrtMemoryInfo> memory_{api->ReleaseMemoryInfo};
  OrtAllocator* allocator_ = nullptr;
};

// A number of the metadata, or what stands for null.
double number_or(const std::string& text, double otherwise) {
  return text == "null" ? otherwise : std::stod(text);
}

// [low, high]
std::pair<double, double> range_of(const std::string& text) {
  const std::size_t comma = text.find(',');
  return {std::stod(text.substr(1)), std::stod(text.substr(comma + 1))};
}

void run(const std::string& model, const std::string& photograph, const std::string& output) {
  const Detector detector(model);
  Picture picture = png::read(photograph, range_of(detector.about("range_16bit")));
  const Detector::Result result = detector.judge(picture);

  const auto [lowest, highest] = std::minmax_element(result.map.begin(), result.map.end());
  const double low = number_or(detector.about("heat_map_low"), *lowest);
  const double high = number_or(detector.about("heat_map_high"), *highest);
  std::vector<std::uint8_t> shades(result.map.size());
  std::transform(result.map.begin(), result.map.end(), shades.begin(), [&](float one) {
    const double share = (one - low) / (high > low ? high - low : 1);
    return static_cast<std::uint8_t>(std::lround(255 * std::min(std::max(share, 0.0), 1.0)));
  });
  png::write(output, result.rows, std::move(shades));

  const std::string threshold = detector.about("image_threshold");
  std::cout.precision(std::numeric_limits<float>::max_digits10);
  std::cout << result.score << ' '
            << (threshold == "null"                   ? "no threshold"
                : result.score > std::stod(threshold) ? "reject"
                                                      : "accept")
            << '\n';
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::cerr << "use: detect MODEL.onnx IMAGE.png MAP.png\n";
    return 2;
  }
  api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!api) {
    std::cerr << "the library of onnxruntime is older than the header this was built with\n";
    return 2;
  }
  try {
    run(arguments[1], arguments[2], arguments[3]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
  return 0;
}
