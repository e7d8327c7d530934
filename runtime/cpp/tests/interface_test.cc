// The C interface and the C++ header over it: what Python gives, and every wrong use answered in a sentence.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <thread>

#include "model_data.h"
#include "vtr/vtr.hpp"

namespace {

class Interface : public ModelData {
 protected:
  void SetUp() override {
    ModelData::SetUp();
    if (!HasFatalFailure()) model_ = std::make_unique<vtr::Model>(model_data("bundle"));
  }
  std::unique_ptr<vtr::Model> model_;
};

vtr_code code_of(vtr_status *status, std::string *message = nullptr) {
  const vtr_code code = vtr_status_code(status);
  const std::string sentence = vtr_status_message(status);
  if (code != VTR_OK) {
    EXPECT_GT(sentence.size(), 10u);
  }
  if (message != nullptr) *message = sentence;
  vtr_status_free(status);
  return code;
}

vtr_string text_of(const std::string &text) { return {text.data(), text.size()}; }

TEST_F(Interface, IdsAndEmbeddingsOfTextsAreThePythonRuntimes) {
  EXPECT_EQ(model_->tokenize(texts_), expected<int32_t>("texts/ids"));
  const vtr::Matrix found = model_->embed_texts(texts_);
  ASSERT_EQ(found.rows, texts_.size());
  expect_near(expected<float>("texts/embeddings"), found.values.data());
}

TEST_F(Interface, FramesOfAnySizeEmbedAsInPython) {
  for (const std::string &name : names("frames/")) {
    const auto shape = this->shape("frames/" + name);
    const auto bytes = expected<uint8_t>("frames/" + name);
    const size_t height = shape[1], width = shape[2], row = width * 3;
    // As they stand, and with rows that lie further apart.
    for (const size_t stride : {row, row + 13}) {
      std::vector<uint8_t> padded(shape[0] * height * stride, 77);
      for (size_t i = 0; i < shape[0] * height; ++i)
        std::copy_n(bytes.data() + i * row, row, padded.data() + i * stride);
      std::vector<vtr_frame> frames;
      for (size_t t = 0; t < shape[0]; ++t) {
        frames.push_back({padded.data() + t * height * stride, width, height, static_cast<ptrdiff_t>(stride)});
      }
      const vtr::Matrix found = model_->embed_clips({{frames.data(), frames.size()}});
      expect_near(expected<float>("embedding/" + name), found.values.data());
    }
  }
}

TEST_F(Interface, AWholeClipOfTheModelsOwnSizeIsTakenWhereItLies) {
  const size_t frames = model_->info().frames, size = model_->info().frame_size;
  std::vector<uint8_t> pixels(2 * frames * size * size * 3);
  std::iota(pixels.begin(), pixels.end(), uint8_t{0});
  std::vector<vtr_frame> views;
  for (size_t i = 0; i < 2 * frames; ++i) views.push_back({pixels.data() + i * size * size * 3, size, size, 0});
  const vtr::Matrix found = model_->embed_clips({{views.data(), frames}, {views.data() + frames, frames}});
  vtr::Matrix want{std::vector<float>(2 * model_->dim()), 2, model_->dim()};
  const std::vector<uint8_t> mask(2 * frames, 1);
  vtr::check(vtr_embed_pixels(model_->get(), pixels.data(), mask.data(), 2, nullptr, want.values.data(), nullptr));
  EXPECT_EQ(found.values, want.values);
}

TEST_F(Interface, VideosEmbedAsInPython) {
  if (!vtr_has_video()) GTEST_SKIP() << "built without FFmpeg";
  for (const std::string &name : names("video/")) {
    std::vector<float> embedding(model_->dim()), frames(model_->info().frames * model_->dim());
    const std::string path = model_data("clips/" + name);
    vtr::check(vtr_embed_video(model_->get(), path.c_str(), nullptr, nullptr, embedding.data(), frames.data()));
    expect_near(expected<float>("video/" + name), embedding.data());
    expect_near(expected<float>("video_frames/" + name), frames.data());
    EXPECT_EQ(model_->read_video(path).mask, expected<uint8_t>("video_mask/" + name));
  }
}

TEST_F(Interface, TheIndexIsSearchedAndRerankedAsInPython) {
  const vtr::Index index(model_data("index.vtri"));
  const auto rows = expected<int64_t>("search/rows");
  const auto scores = expected<float>("search/scores"), starts32 = std::vector<float>();
  const auto starts = expected<double>("search/starts");
  const size_t k = rows.size() / texts_.size();
  const auto found = index.search(model_->embed_texts(texts_), model_->space(), k);
  for (size_t query = 0; query < texts_.size(); ++query) {
    ASSERT_EQ(found[query].size(), k);
    for (size_t place = 0; place < k; ++place) {
      EXPECT_NEAR(found[query][place].score, scores[query * k + place], 2e-6);
    }
  }
  for (size_t place = 0; place < k; ++place) {
    EXPECT_EQ(found[0][place].row, static_cast<size_t>(rows[place]));
    EXPECT_EQ(found[0][place].start.value_or(-1), starts[place]);
    EXPECT_NE(found[0][place].name.find("clips/"), std::string::npos);
  }
  const size_t frames = model_->info().frames;
  std::vector<float> stored(k * frames * model_->dim());
  std::vector<uint8_t> mask(k * frames);
  for (size_t place = 0; place < k; ++place) {
    vtr::check(vtr_index_frame_embeddings(index.get(), found[0][place].row, frames,
                                          stored.data() + place * frames * model_->dim(),
                                          mask.data() + place * frames));
  }
  EXPECT_EQ(stored, expected<float>("rerank/frames"));
  EXPECT_EQ(mask, expected<uint8_t>("rerank/mask"));
  expect_near(expected<float>("rerank/scores"), model_->rerank(texts_[0], stored, mask).data(), 1e-5);
}

TEST_F(Interface, EmbeddingsOfAnotherSpaceAreNotSearched) {
  const vtr::Index index(model_data("index.vtri"));
  const std::vector<float> query(index.dim(), 0.1F);
  vtr_hit hit;
  std::string message;
  EXPECT_EQ(code_of(vtr_index_search(index.get(), "other", query.data(), 1, 1, nullptr, &hit), &message),
            VTR_SPACE_ERROR);
  EXPECT_NE(message.find("another model"), std::string::npos);
  // More than there are, none at all, and what is no number.
  const std::string space(index.space());
  std::vector<vtr_hit> hits(index.rows() + 2);
  vtr::check(vtr_index_search(index.get(), space.c_str(), query.data(), 1, hits.size(), nullptr, hits.data()));
  EXPECT_EQ(hits[index.rows()].row, SIZE_MAX);
  EXPECT_EQ(code_of(vtr_index_search(index.get(), space.c_str(), nullptr, 0, 0, nullptr, nullptr)), VTR_OK);
  const std::vector<float> bad(index.dim(), NAN);
  EXPECT_EQ(code_of(vtr_index_search(index.get(), space.c_str(), bad.data(), 1, 1, nullptr, &hit)),
            VTR_INVALID_ARGUMENT);
}

TEST_F(Interface, WrongUseIsAnswered) {
  vtr_model *model = model_->get();
  float out[4096];
  int32_t ids[77 * 4] = {};
  uint8_t pixels[32 * 32 * 3] = {};
  const vtr_string hello = text_of("hello");
  const std::string bad_bytes = "\xff\xfe caf\xc3";
  const vtr_string bad = text_of(bad_bytes);
  const std::string long_text(10'000'000, 'a');
  const vtr_string endless = text_of(long_text);
  const vtr_string null_text = {nullptr, 3};
  EXPECT_EQ(code_of(vtr_model_open(nullptr, nullptr, nullptr)), VTR_INVALID_ARGUMENT);
  EXPECT_EQ(code_of(vtr_embed_texts(nullptr, &hello, 1, nullptr, out)), VTR_INVALID_ARGUMENT);
  EXPECT_EQ(code_of(vtr_embed_texts(model, nullptr, 1, nullptr, out)), VTR_INVALID_ARGUMENT);
  EXPECT_EQ(code_of(vtr_embed_texts(model, &hello, 1, nullptr, nullptr)), VTR_INVALID_ARGUMENT);
  EXPECT_EQ(code_of(vtr_embed_texts(model, &null_text, 1, nullptr, out)), VTR_INVALID_ARGUMENT);
  EXPECT_EQ(code_of(vtr_embed_texts(model, &hello, SIZE_MAX / 2, nullptr, out)), VTR_INVALID_ARGUMENT);
  EXPECT_EQ(code_of(vtr_embed_texts(model, &hello, 0, nullptr, nullptr)), VTR_OK);
  EXPECT_EQ(code_of(vtr_embed_texts(model, &bad, 1, nullptr, out)), VTR_TEXT_ERROR);
  EXPECT_EQ(code_of(vtr_embed_texts(model, &endless, 1, nullptr, out)), VTR_TEXT_ERROR);
  EXPECT_EQ(code_of(vtr_tokenize(model, &bad, 1, ids)), VTR_TEXT_ERROR);
  EXPECT_EQ(code_of(vtr_embed_ids(model, ids, 1, 77, nullptr, out)), VTR_TEXT_ERROR);  // no end of text
  EXPECT_EQ(code_of(vtr_embed_ids(model, ids, 1, 78, nullptr, out)), VTR_TEXT_ERROR);
  EXPECT_EQ(code_of(vtr_embed_ids(model, ids, 1, 0, nullptr, out)), VTR_TEXT_ERROR);
  const vtr_frame frames[] = {{pixels, 0, 4, 0},   {pixels, 4, 0, 0}, {nullptr, 4, 4, 0},
                              {pixels, 4, 4, -12}, {pixels, 4, 4, 5}, {pixels, SIZE_MAX, 1, 0}};
  for (const vtr_frame &frame : frames) {
    const vtr_clip clip = {&frame, 1};
    EXPECT_EQ(code_of(vtr_embed_clips(model, &clip, 1, nullptr, out, nullptr)), VTR_INVALID_ARGUMENT);
    EXPECT_EQ(code_of(vtr_resize_frame(&frame, 32, pixels)), VTR_INVALID_ARGUMENT);
  }
  const std::vector<uint8_t> row(65535 * 3);
  const vtr_frame narrow = {row.data(), 65535, 1, 0};
  std::vector<uint8_t> square(1024 * 1024 * 3);
  EXPECT_EQ(code_of(vtr_resize_frame(&narrow, 1024, square.data())), VTR_MEDIA_ERROR);
  const vtr_frame sound = {pixels, 32, 32, 0};
  const std::vector<vtr_frame> many(model_->info().frames + 1, sound);
  for (const vtr_clip &clip : {vtr_clip{many.data(), many.size()}, vtr_clip{many.data(), 0}, vtr_clip{nullptr, 1}}) {
    EXPECT_EQ(code_of(vtr_embed_clips(model, &clip, 1, nullptr, out, nullptr)), VTR_INVALID_ARGUMENT);
  }
  std::vector<uint8_t> clip(model_->info().frames * 32 * 32 * 3);
  std::vector<uint8_t> mask(model_->info().frames, 0);
  EXPECT_EQ(code_of(vtr_embed_pixels(model, clip.data(), mask.data(), 1, nullptr, out, nullptr)), VTR_INVALID_ARGUMENT);
  mask[0] = 2;
  EXPECT_EQ(code_of(vtr_embed_pixels(model, clip.data(), mask.data(), 1, nullptr, out, nullptr)), VTR_INVALID_ARGUMENT);
  const vtr_code no_video = vtr_has_video() ? VTR_MEDIA_ERROR : VTR_UNAVAILABLE;
  EXPECT_EQ(code_of(vtr_embed_video(model, "/nowhere.mp4", nullptr, nullptr, out, nullptr)), no_video);
  EXPECT_EQ(code_of(vtr_embed_video(model, "/", nullptr, nullptr, out, nullptr)), no_video);
  EXPECT_EQ(code_of(vtr_embed_video(model, model_data("texts.jsonl").c_str(), nullptr, nullptr, out, nullptr)),
            no_video);
  const vtr_window before = {-1, 2};
  EXPECT_EQ(code_of(vtr_embed_video(model, "x", &before, nullptr, out, nullptr)), VTR_INVALID_ARGUMENT);
  vtr_model_options options;
  vtr_model_options_init(&options);
  options.backend = "tpu";
  vtr_model *other = nullptr;
  EXPECT_EQ(code_of(vtr_model_open(model_data("bundle").c_str(), &options, &other)), VTR_INVALID_ARGUMENT);
  options.backend = "onnx-cuda";
  EXPECT_EQ(code_of(vtr_model_open(model_data("bundle").c_str(), &options, &other)), VTR_UNAVAILABLE);
  options.struct_size = 0;
  EXPECT_EQ(code_of(vtr_model_open(model_data("bundle").c_str(), &options, &other)), VTR_INVALID_ARGUMENT);
  EXPECT_EQ(other, nullptr);
  EXPECT_EQ(code_of(vtr_index_open(model_data("texts.jsonl").c_str(), nullptr)), VTR_INVALID_ARGUMENT);
  vtr_index *index = nullptr;
  EXPECT_EQ(code_of(vtr_index_open(model_data("texts.jsonl").c_str(), &index)), VTR_INDEX_ERROR);
  vtr_model_close(nullptr);
  vtr_index_close(nullptr);
  vtr_cancel_free(nullptr);
  vtr_status_free(nullptr);
}

TEST_F(Interface, AnOlderProgramsOptionsAreReadAsFarAsTheyGo) {
  vtr_model_options options;
  vtr_model_options_init(&options);
  options.struct_size = offsetof(vtr_model_options, threads);
  options.threads = -5;  // beyond what the program knows
  vtr_model *model = nullptr;
  vtr::check(vtr_model_open(model_data("bundle").c_str(), &options, &model));
  vtr_model_close(model);
}

TEST_F(Interface, ThreadsThatSpinGiveTheSame) {
  vtr_model_options options = vtr::Model::options();
  EXPECT_EQ(options.spin, 0);
  options.threads = 2;
  options.spin = 1;
  const vtr::Matrix found = vtr::Model(model_data("bundle"), options).embed_texts(texts_);
  expect_near(expected<float>("texts/embeddings"), found.values.data());
}

TEST_F(Interface, ADamagedBundleIsRefused) {
  namespace fs = std::filesystem;
  const fs::path copy = fs::path(testing::TempDir()) / "vtr-damaged";
  for (const char *file : {"tokenizer.json", "manifest.json", "text.onnx", "golden/golden.json"}) {
    fs::remove_all(copy);
    fs::copy(model_data("bundle"), copy, fs::copy_options::recursive);
    {
      std::fstream bytes(copy / file, std::ios::in | std::ios::out | std::ios::binary);
      bytes.seekp(5);
      bytes.put('#');
    }
    vtr_model *model = nullptr;
    EXPECT_EQ(code_of(vtr_model_open(copy.c_str(), nullptr, &model)), VTR_BUNDLE_ERROR) << file;
    fs::remove(copy / file);
    EXPECT_EQ(code_of(vtr_model_open(copy.c_str(), nullptr, &model)), VTR_BUNDLE_ERROR) << file;
  }
  fs::remove_all(copy);
}

// Here several threads of ours meet: ThreadSanitizer runs the suites of this name alone (CMakePresets.json).
class InterfaceThreads : public Interface {};

TEST_F(InterfaceThreads, ACancelledCallStops) {
  const vtr::Cancel cancel;
  const_cast<vtr::Cancel &>(cancel).request();
  try {
    model_->embed_texts({"a"}, &cancel);
    FAIL();
  } catch (const vtr::Error &error) {
    EXPECT_EQ(error.code(), VTR_CANCELLED);
  }
  EXPECT_THROW(model_->embed_video(model_data("clips/decord_video_180.mov"), nullptr, &cancel), vtr::Error);
  // From another thread, while a long call runs.
  vtr::Cancel later;
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    later.request();
  });
  const std::vector<std::string> many(100'000, "a dog runs over the wide green meadow and barks at two cats");
  EXPECT_THROW(model_->embed_texts(many, &later), vtr::Error);
  stopper.join();
}

// A number from the environment, for runs longer than the tests of a build.
size_t setting(const char *name, size_t otherwise) {
  const char *text = std::getenv(name);
  return text == nullptr ? otherwise : std::stoull(text);
}

TEST_F(InterfaceThreads, ManyShareAModel) {
  constexpr size_t kThreads = 8, kSearchEvery = 10, kVideoEvery = 25, kHits = 3;
  const size_t requests = setting("VTR_TEST_REQUESTS", 25);
  const vtr::Matrix want = model_->embed_texts(texts_);
  const vtr::Index index(model_data("index.vtri"));
  const auto best = index.search(want, model_->space(), kHits);
  const std::string video = names("video/").front();
  const auto video_want = expected<float>("video/" + video);
  std::atomic<size_t> searches{0}, videos{0}, misses{0};
  const auto compare = [&](const float *found, const float *wanted, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      if (!(std::abs(static_cast<double>(found[i]) - wanted[i]) <= 1e-6)) ++misses;  // NaN too
    }
  };
  const auto work = [&](size_t thread) {
    for (size_t i = 0; i < requests; ++i) {
      // Each thread at another place, so that different requests meet.
      const size_t turn = i + thread * 7, text = turn % texts_.size();
      const vtr::Matrix found = model_->embed_texts({texts_[text]});
      compare(found.values.data(), want.row(text), want.columns);
      if (turn % kSearchEvery == 0) {
        const auto hits = index.search(found, model_->space(), kHits);
        for (size_t place = 0; place < kHits; ++place) compare(&hits[0][place].score, &best[text][place].score, 1);
        ++searches;
      }
      if (vtr_has_video() && turn % kVideoEvery == 0) {
        compare(model_->embed_video(model_data("clips/" + video)).data(), video_want.data(), video_want.size());
        ++videos;
      }
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(misses, 0u);
  EXPECT_GT(searches, 0u);
  EXPECT_EQ(videos > 0, vtr_has_video() != 0);
}

// Without pages of files: ONNX Runtime reads more of its own code seconds after its start.
size_t resident_bytes() {
  size_t all = 0, resident = 0, of_files = 0;
  std::ifstream("/proc/self/statm") >> all >> resident >> of_files;
  return (resident - of_files) * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

TEST_F(Interface, MemoryDoesNotGrowWithTheTextsEmbedded) {
#ifdef VTR_SANITIZED
  GTEST_SKIP() << "a sanitizer keeps what was freed; the preset release runs this";
#endif
  constexpr size_t kWarmUp = 500, kMostGrowth = 1 << 20;
  const size_t texts = setting("VTR_TEST_TEXTS", 2000);
  size_t next = 0;
  const auto embed = [&](size_t count) {
    for (size_t i = 0; i < count; ++i) model_->embed_texts({texts_[next++ % texts_.size()]});
  };
  embed(kWarmUp);
  const size_t before = resident_bytes();
  ASSERT_GT(before, 0u);
  embed(texts);
  const size_t after = resident_bytes();
  EXPECT_LE(after, before + kMostGrowth);
  RecordProperty("grown_bytes", std::to_string(static_cast<int64_t>(after) - static_cast<int64_t>(before)));
}

#ifdef VTR_CHECK_HANDLES
TEST_F(Interface, AClosedHandleIsFoundOut) {
  vtr_model *raw = nullptr;
  vtr::check(vtr_model_open(model_data("bundle").c_str(), nullptr, &raw));
  vtr_model_close(raw);
  const vtr_string hello = text_of("hello");
  float out[4096];
  EXPECT_EQ(code_of(vtr_embed_texts(raw, &hello, 1, nullptr, out)), VTR_INVALID_ARGUMENT);
  vtr_model_close(raw);
}
#endif

TEST(Version, TheLibrarySaysWhatItIs) {
  EXPECT_EQ(vtr_api_version(), static_cast<uint32_t>(VTR_API_VERSION));
  EXPECT_STREQ(vtr_version(), "0.1.0");
}

}  // namespace
