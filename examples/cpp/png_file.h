// PNG files as pixels, by libpng.
#pragma once

#include <png.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct Picture {
  std::size_t height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  // height x width x 3, red before green before blue
};

namespace png {

// One file while libpng reads or writes it.
class Work {
 public:
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::FILE* file = nullptr;

  Work(const std::string& path, bool reads) : path_(path), reads_(reads) {
    const auto create = reads ? png_create_read_struct : png_create_write_struct;
    png = create(PNG_LIBPNG_VER_STRING, this, fail, ignore);
    info = png ? png_create_info_struct(png) : nullptr;
    file = info ? std::fopen(path.c_str(), reads ? "rb" : "wb") : nullptr;
    if (!file) {
      destroy();
      throw std::runtime_error(path + " cannot be opened");
    }
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;
  ~Work() {
    std::fclose(file);
    destroy();
  }

  // Calls libpng, and throws what it fails at. It jumps back to here, so the calls may leave no
  // variables behind that must be destroyed.
  template <typename Calls>
  void operator()(Calls calls) {
    if (setjmp(png_jmpbuf(png))) {
      throw std::runtime_error(path_ + (reads_ ? " cannot be read as PNG: " : " cannot be written: ") +
                               message_);
    }
    calls();
  }

 private:
  static void fail(png_structp png, png_const_charp message) {
    static_cast<Work*>(png_get_error_ptr(png))->message_ = message;
    png_longjmp(png, 1);
  }
  static void ignore(png_structp, png_const_charp) {}
  void destroy() {
    if (reads_) png_destroy_read_struct(&png, &info, nullptr);
    else png_destroy_write_struct(&png, &info);
  }

  std::string path_, message_;
  bool reads_;
};

inline std::vector<png_bytep> rows_of(std::vector<std::uint8_t>& bytes, std::size_t height) {
  std::vector<png_bytep> rows(height);
  for (std::size_t y = 0; y < height; ++y) rows[y] = bytes.data() + y * (bytes.size() / height);
  return rows;
}

// Reads a PNG as `jaxad predict` does: palettes and gray become colour, transparent pixels lie on
// white, the range (low, high) of 16-bit gray becomes 0 to 255, of 16-bit colour the upper byte
// counts; gamma and colour profiles are not applied.
inline Picture read(const std::string& path, std::pair<double, double> range) {
  Work work(path, true);
  Picture picture;
  bool deep = false;
  std::size_t stride = 0;
  work([&] {
    png_init_io(work.png, work.file);
    png_read_info(work.png, work.info);
    deep = png_get_bit_depth(work.png, work.info) == 16 &&
           png_get_color_type(work.png, work.info) == PNG_COLOR_TYPE_GRAY;
    if (!deep) {
      png_set_strip_16(work.png);
      png_set_expand(work.png);
      png_set_gray_to_rgb(work.png);
      png_set_add_alpha(work.png, 255, PNG_FILLER_AFTER);
    }
    png_set_interlace_handling(work.png);
    png_read_update_info(work.png, work.info);
    picture.height = png_get_image_height(work.png, work.info);
    picture.width = png_get_image_width(work.png, work.info);
    stride = png_get_rowbytes(work.png, work.info);
  });
  std::vector<std::uint8_t> bytes(picture.height * stride);
  std::vector<png_bytep> rows = rows_of(bytes, picture.height);
  work([&] {
    png_read_image(work.png, rows.data());
    png_read_end(work.png, nullptr);
  });
  const std::size_t count = picture.height * picture.width;
  picture.pixels.resize(3 * count);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t c = 0; c < 3; ++c) {
      double value = 0;
      if (deep) {
        const double deep_value = 256.0 * bytes[2 * i] + bytes[2 * i + 1];
        const double share = (deep_value - range.first) / (range.second - range.first);
        value = 255 * std::min(std::max(share, 0.0), 1.0);
      } else {
        const double opacity = bytes[4 * i + 3] / 255.0;
        value = opacity * bytes[4 * i + c] + (1 - opacity) * 255;
      }
      picture.pixels[3 * i + c] = static_cast<std::uint8_t>(std::nearbyint(value));
    }
  }
  return picture;
}

// Writes `height` rows of gray pixels.
inline void write(const std::string& path, std::size_t height, std::vector<std::uint8_t> gray) {
  Work work(path, false);
  std::vector<png_bytep> rows = rows_of(gray, height);
  work([&] {
    png_init_io(work.png, work.file);
    png_set_IHDR(work.png, work.info, static_cast<png_uint_32>(gray.size() / height),
                 static_cast<png_uint_32>(height), 8, PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(work.png, work.info);
    png_write_image(work.png, rows.data());
    png_write_end(work.png, work.info);
    png_write_flush(work.png);
  });
  if (std::fflush(work.file) != 0) throw std::runtime_error(path + " cannot be written");
}

}  // namespace png
