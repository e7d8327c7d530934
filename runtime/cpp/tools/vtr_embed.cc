// vtr-embed: sentences or video files to embeddings, as JSON Lines or as an index.
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "index_file.h"
#include "json_lines.h"
#include "quiet.h"
#include "vtr/vtr.hpp"

namespace {

using vtr::tools::IndexRows;
using vtr::tools::json_number;
using vtr::tools::json_string;

constexpr size_t kSentencesAtOnce = 256;

struct Row {
  std::vector<float> embedding;
  size_t warnings = 0;
  std::string error;  // empty where there is an embedding
};

// Gives rows on in their order, whichever thread has them ready first.
class Output {
 public:
  Output(const vtr::Model &model, bool sentences, std::string index)
      : model_(model), sentences_(sentences), index_(std::move(index)) {
    rows_.sentences = sentences;
  }

  void add(const std::string &name, const Row &row) {
    if (!row.error.empty()) {
      ++failed_;
      std::fprintf(stderr, "%s\n", row.error.c_str());
    }
    if (index_.empty()) {
      print(name, row);
    } else if (row.error.empty()) {
      keep(name, row);
    }
  }
  // The exit status.
  int finish() const {
    if (!index_.empty()) {
      vtr::tools::write_index(index_, std::string(model_.space()), model_.dim(), rows_);
      std::fprintf(stderr, "%zu rows in %s\n", rows_.names.size(), index_.c_str());
    }
    if (failed_ != 0) std::fprintf(stderr, "%zu could not be embedded\n", failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  void print(const std::string &name, const Row &row) const {
    std::string line = std::string("{\"") + (sentences_ ? "text" : "path") + "\": " + json_string(name);
    if (!row.error.empty()) {
      line += ", \"status\": \"error\", \"message\": " + json_string(row.error) + "}\n";
    } else {
      line += ", \"status\": \"" + std::string(row.warnings ? "warning" : "ok") + "\", \"embedding\": [";
      for (size_t i = 0; i < row.embedding.size(); ++i) line += (i ? ", " : "") + json_number(row.embedding[i]);
      line += "]}\n";
    }
    std::fwrite(line.data(), 1, line.size(), stdout);
  }
  void keep(const std::string &name, const Row &row) {
    rows_.names.push_back(name);
    rows_.embeddings.insert(rows_.embeddings.end(), row.embedding.begin(), row.embedding.end());
    struct stat found {};
    const bool known = !sentences_ && ::stat(name.c_str(), &found) == 0;
    rows_.sizes.push_back(known ? found.st_size : -1);
    rows_.mtimes.push_back(known ? found.st_mtim.tv_sec * 1'000'000'000LL + found.st_mtim.tv_nsec : -1);
  }

  const vtr::Model &model_;
  bool sentences_;
  std::string index_;
  IndexRows rows_;
  size_t failed_ = 0;
};

void embed_texts(const vtr::Model &model, const std::vector<std::string> &texts, Output &output) {
  for (size_t start = 0; start < texts.size(); start += kSentencesAtOnce) {
    const std::vector<std::string> some(
        texts.begin() + static_cast<ptrdiff_t>(start),
        texts.begin() + static_cast<ptrdiff_t>(std::min(start + kSentencesAtOnce, texts.size())));
    try {
      const vtr::Matrix found = model.embed_texts(some);
      for (size_t i = 0; i < some.size(); ++i) {
        output.add(some[i], {std::vector<float>(found.row(i), found.row(i) + found.columns), 0, ""});
      }
    } catch (const vtr::Error &error) {
      if (error.code() != VTR_TEXT_ERROR) throw;
      for (const std::string &text : some) {  // one bad sentence does not stop the others
        try {
          output.add(text, {model.embed_texts({text}).values, 0, ""});
        } catch (const vtr::Error &alone) {
          if (alone.code() != VTR_TEXT_ERROR) throw;
          output.add(text, {{}, 0, alone.what()});
        }
      }
    }
  }
}

Row embed_video(const vtr::Model &model, const std::string &path) {
  Row row;
  try {
    const vtr::VideoFrames frames = model.read_video(path);
    row.warnings = frames.warnings;
    row.embedding.resize(model.dim());
    vtr::check(vtr_embed_pixels(model.get(), frames.pixels.data(), frames.mask.data(), 1, nullptr, row.embedding.data(),
                                nullptr));
  } catch (const std::exception &error) {
    row.error = error.what();
  }
  return row;
}

// `jobs` threads take the next file each; rows are given on in the order of the files, a few ahead of them at most.
void embed_videos(const vtr::Model &model, const std::vector<std::string> &paths, size_t jobs, Output &output) {
  std::mutex mutex;
  std::condition_variable turned;
  std::map<size_t, Row> done;
  size_t next = 0, given = 0;
  const auto work = [&] {
    for (;;) {
      size_t mine;
      {
        std::unique_lock<std::mutex> lock(mutex);
        turned.wait(lock, [&] { return next >= paths.size() || next < given + 4 * jobs; });
        if (next >= paths.size()) return;
        mine = next++;
      }
      Row row = embed_video(model, paths[mine]);
      const std::lock_guard<std::mutex> lock(mutex);
      done[mine] = std::move(row);
      turned.notify_all();
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < jobs; ++i) threads.emplace_back(work);
  for (; given < paths.size();) {
    std::unique_lock<std::mutex> lock(mutex);
    turned.wait(lock, [&] { return done.count(given) != 0; });
    const Row row = std::move(done[given]);
    done.erase(given);
    lock.unlock();
    output.add(paths[given], row);
    lock.lock();
    ++given;
    turned.notify_all();
  }
  for (std::thread &thread : threads) thread.join();
}

std::vector<std::string> lines_of(const std::string &path) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file) throw vtr::Error(VTR_INVALID_ARGUMENT, path + " cannot be read; give a file of one sentence a line");
  }
  std::istream &stream = path == "-" ? std::cin : file;
  std::vector<std::string> found;
  for (std::string line; std::getline(stream, line);) found.push_back(line);
  return found;
}

}  // namespace

int main(int argc, char **argv) {
  CLI::App app("Embed sentences or video files with a bundle: one JSON object a line, or an index.", "vtr-embed");
  std::string bundle, texts_file, output, backend = "onnx-cpu";
  std::vector<std::string> paths, texts;
  int threads = 1;
  size_t jobs = 1;
  app.add_option("bundle", bundle, "Folder that vtr-export wrote")->required();
  app.add_option("videos", paths, "Video files");
  app.add_option("--text", texts, "A sentence; repeatable")->take_all()->allow_extra_args(false);
  app.add_option("--texts", texts_file, "A file of one sentence a line; - for standard input");
  app.add_option("-o,--output", output, "Write an index (.vtri) in place of JSON Lines");
  app.add_option("--backend", backend, "onnx-cpu, onnx-cuda, onnx-tensorrt or onnx-trt-rtx")->capture_default_str();
  app.add_option("--threads", threads, "Threads of one run of a graph; 0: one per core")->capture_default_str();
  app.add_option("--jobs", jobs, "Videos at a time")->capture_default_str()->check(CLI::Range(1, 1024));
  app.set_version_flag("--version", vtr_version());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    const int status = app.exit(error);
    return status == 0 ? 0 : 2;
  }
  vtr::tools::silence_ffmpeg();
  try {
    if (!texts_file.empty()) {
      for (std::string &line : lines_of(texts_file)) texts.push_back(std::move(line));
    }
    if (texts.empty() == paths.empty()) {
      std::fprintf(stderr, "give either video files, or sentences by --text or --texts\n");
      return 2;
    }
    vtr_model_options options = vtr::Model::options();
    options.backend = backend.c_str();
    options.threads = threads;
    const vtr::Model model(bundle, options);
    Output rows(model, !texts.empty(), output);
    texts.empty() ? embed_videos(model, paths, jobs, rows) : embed_texts(model, texts, rows);
    return rows.finish();
  } catch (const vtr::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.code() == VTR_INVALID_ARGUMENT ? 2 : 1;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
