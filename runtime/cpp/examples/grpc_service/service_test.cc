// The service over the wire, beside the library itself. VTR_TEST_DATA: what make_model_data.py wrote.
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <thread>

#include "health.grpc.pb.h"
#include "retrieval.grpc.pb.h"
#include "server.h"

namespace {

using grpc::StatusCode;
using grpc::health::v1::HealthCheckResponse;
using std::chrono::milliseconds;
using vtr::v1::Retrieval;

std::string data(const std::string &name) {
  const char *folder = std::getenv("VTR_TEST_DATA");
  return (folder == nullptr ? "." : std::string(folder)) + "/model/" + name;
}

ServerOptions options() {
  ServerOptions found;
  found.address = "127.0.0.1:0";
  found.service.bundle = data("bundle");
  found.service.index = data("index.vtri");
  found.service.media = data("clips");
  return found;
}

class GrpcService : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::ifstream(data("bundle/manifest.json"))) {
      GTEST_FAIL() << data("bundle") << " is not there; run python runtime/cpp/tests/make_model_data.py FOLDER and set "
                   << "VTR_TEST_DATA=FOLDER";
    }
  }
  void start(const ServerOptions &chosen = options()) {
    server_ = std::make_unique<Server>(chosen);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server_->port()),
                                         grpc::InsecureChannelCredentials(), arguments);
    stub_ = Retrieval::NewStub(channel_);
  }

  grpc::Status embed(const std::vector<std::string> &texts, vtr::v1::EmbedTextsResponse *response, int ms = 60000) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + milliseconds(ms));
    vtr::v1::EmbedTextsRequest request;
    for (const std::string &text : texts) request.add_texts(text);
    return stub_->EmbedTexts(&context, request, response);
  }
  grpc::Status embed(const vtr::v1::EmbedFramesRequest &request, vtr::v1::EmbedVideoResponse *response,
                     int ms = 60000) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + milliseconds(ms));
    return stub_->EmbedFrames(&context, request, response);
  }
  grpc::Status embed(const std::string &path, vtr::v1::EmbedVideoResponse *response) {
    grpc::ClientContext context;
    vtr::v1::EmbedVideoRequest request;
    request.set_path(path);
    return stub_->EmbedVideo(&context, request, response);
  }
  grpc::Status search(const vtr::v1::SearchRequest &request, vtr::v1::SearchResponse *response) {
    grpc::ClientContext context;
    return stub_->Search(&context, request, response);
  }
  grpc::Status health(HealthCheckResponse *response) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(Retrieval::service_full_name());
    return grpc::health::v1::Health::NewStub(channel_)->Check(&context, request, response);
  }

  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Retrieval::Stub> stub_;
};

// The company that a sentence has in its pass moves the last digits.
void expect_near(const float *want, const vtr::v1::Embedding &got, size_t dim) {
  ASSERT_EQ(static_cast<size_t>(got.values_size()), dim);
  for (size_t i = 0; i < dim; ++i) ASSERT_NEAR(want[i], got.values(static_cast<int>(i)), 1e-6);
}

vtr::v1::EmbedFramesRequest clip(size_t frames, uint32_t width, uint32_t height) {
  vtr::v1::EmbedFramesRequest request;
  for (size_t i = 0; i < frames; ++i) {
    vtr::v1::Frame *frame = request.add_frames();
    frame->set_width(width);
    frame->set_height(height);
    std::string rgb(size_t{3} * width * height, '\0');
    std::iota(rgb.begin(), rgb.end(), static_cast<char>(i));
    frame->set_rgb(std::move(rgb));
  }
  return request;
}

TEST_F(GrpcService, ManyThreadsGetWhatTheLibraryGivesAndShareItsPasses) {
  ServerOptions chosen = options();
  chosen.service.batching.wait = milliseconds(20);
  start(chosen);
  constexpr size_t kThreads = 16, kRequests = 8;
  std::vector<std::string> texts;
  for (size_t i = 0; i < 2 * kThreads * kRequests; ++i) texts.push_back("a dog number " + std::to_string(i) + " runs");
  const vtr::Matrix want = server_->service().model().embed_texts(texts);
  std::atomic<size_t> right{0};
  std::vector<std::thread> threads;
  for (size_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (size_t i = 0; i < kRequests; ++i) {
        const size_t at = 2 * (thread * kRequests + i);
        vtr::v1::EmbedTextsResponse response;
        const grpc::Status status = embed({texts[at], texts[at + 1]}, &response);
        ASSERT_TRUE(status.ok()) << status.error_message();
        ASSERT_EQ(response.embeddings_size(), 2);
        EXPECT_EQ(response.space(), server_->service().model().space());
        for (int row = 0; row < 2; ++row) expect_near(want.row(at + row), response.embeddings(row), want.columns);
        ++right;
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(right, kThreads * kRequests);
  EXPECT_EQ(server_->service().batcher().embedded(), texts.size());
  EXPECT_LT(server_->service().batcher().passes(), kThreads * kRequests / 2);
}

TEST_F(GrpcService, ABadSentenceFailsItsOwnRequestAlone) {
  ServerOptions chosen = options();
  chosen.service.batching.wait = milliseconds(50);
  start(chosen);
  std::atomic<int> good{0}, bad{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      vtr::v1::EmbedTextsResponse response;
      const bool spoilt = thread % 4 == 0;
      const grpc::Status status = embed({"a cat", spoilt ? "a dog \xff\xfe" : "a dog"}, &response);
      if (spoilt) {
        EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << status.error_message();
        EXPECT_GT(status.error_message().size(), 10u);
        ++bad;
      } else {
        EXPECT_TRUE(status.ok()) << status.error_message();
        ++good;
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(good, 6);
  EXPECT_EQ(bad, 2);
}

TEST_F(GrpcService, FramesAndFilesEmbedAsByTheLibrary) {
  start();
  const vtr::Model &model = server_->service().model();
  const auto request = clip(3, 50, 40);
  std::vector<vtr_frame> frames;
  for (const auto &frame : request.frames()) {
    frames.push_back({reinterpret_cast<const uint8_t *>(frame.rgb().data()), 50, 40, 0});
  }
  vtr::v1::EmbedVideoResponse response;
  grpc::Status status = embed(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  expect_near(model.embed_clips({{frames.data(), frames.size()}}).row(0), response.embedding(), model.dim());
  if (!vtr_has_video()) return;
  status = embed("decord_video_180.mov", &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  expect_near(model.embed_video(data("clips/decord_video_180.mov")).data(), response.embedding(), model.dim());
}

TEST_F(GrpcService, WrongUseIsAnsweredInASentence) {
  start();
  vtr::v1::EmbedTextsResponse texts;
  EXPECT_EQ(embed({}, &texts).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(embed(std::vector<std::string>(257, "a"), &texts).error_code(), StatusCode::INVALID_ARGUMENT);
  vtr::v1::EmbedVideoResponse video;
  for (const char *path : {"", ".", "..", "../index.vtri", "/etc/passwd", "sub/../../index.vtri", "not-there.mp4"}) {
    const grpc::Status status = embed(std::string(path), &video);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << path;
    EXPECT_EQ(status.error_message().find(data("")), std::string::npos) << path;
  }
  EXPECT_EQ(embed(clip(0, 1, 1), &video).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(embed(clip(13, 8, 8), &video).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(embed(clip(1, 0, 5), &video).error_code(), StatusCode::INVALID_ARGUMENT);
  auto lies = clip(1, 8, 8);
  lies.mutable_frames(0)->set_width(0xffffffff);
  EXPECT_EQ(embed(lies, &video).error_code(), StatusCode::INVALID_ARGUMENT);
  vtr::v1::SearchRequest request;
  vtr::v1::SearchResponse hits;
  EXPECT_EQ(search(request, &hits).error_code(), StatusCode::INVALID_ARGUMENT);
  request.set_text("a dog");
  request.set_k(4'000'000'000);
  EXPECT_EQ(search(request, &hits).error_code(), StatusCode::INVALID_ARGUMENT);
  request.set_k(1);
  request.mutable_embedding()->add_values(1);
  EXPECT_EQ(search(request, &hits).error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(GrpcService, ALinkOutOfTheMediaFolderIsNotFollowed) {
  const std::string folder = testing::TempDir() + "/vtr-media-" + std::to_string(::getpid());
  std::filesystem::create_directories(folder + "/media");
  const auto clip_path = std::filesystem::absolute(data("clips/decord_video_180.mov"));
  std::filesystem::copy_file(clip_path, folder + "/media/inside.mov");
  std::filesystem::create_symlink(clip_path, folder + "/media/outside.mov");
  std::filesystem::create_symlink("inside.mov", folder + "/media/link.mov");
  std::ofstream(folder + "/media/broken.mov") << "no video";
  ServerOptions chosen = options();
  chosen.service.media = folder + "/media";
  start(chosen);
  vtr::v1::EmbedVideoResponse response;
  EXPECT_EQ(embed("outside.mov", &response).error_code(), StatusCode::INVALID_ARGUMENT);
  const grpc::Status broken = embed("broken.mov", &response);
  if (vtr_has_video()) {
    EXPECT_TRUE(embed("inside.mov", &response).ok());
    EXPECT_TRUE(embed("link.mov", &response).ok());
    EXPECT_EQ(broken.error_code(), StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_EQ(broken.error_message().find(folder), std::string::npos) << broken.error_message();
  std::filesystem::remove_all(folder);
}

TEST_F(GrpcService, ASearchFindsWhatTheLibraryFinds) {
  start();
  const vtr::Model &model = server_->service().model();
  const vtr::Index index(data("index.vtri"));
  const vtr::Matrix query = model.embed_texts({"a dog runs"});
  const auto want = index.search(query, model.space(), 3).front();
  vtr::v1::SearchRequest request;
  request.set_text("a dog runs");
  request.set_k(3);
  for (int by_embedding = 0; by_embedding < 2; ++by_embedding) {
    vtr::v1::SearchResponse response;
    const grpc::Status status = search(request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(static_cast<size_t>(response.hits_size()), want.size());
    for (int i = 0; i < response.hits_size(); ++i) {
      EXPECT_EQ(response.hits(i).row(), want[i].row);
      EXPECT_EQ(response.hits(i).name(), want[i].name);
      EXPECT_NEAR(response.hits(i).score(), want[i].score, 1e-6);
      EXPECT_EQ(response.hits(i).has_start(), want[i].start.has_value());
    }
    request.mutable_embedding()->mutable_values()->Add(query.row(0), query.row(0) + query.columns);
    request.set_space(std::string(model.space()));
  }
}

TEST_F(GrpcService, ADeadlineEndsTheWaitAndTheWork) {
  ServerOptions chosen = options();
  chosen.service.batching.wait = milliseconds(1000);  // longer than the deadline: it passes while the sentence waits
  start(chosen);
  vtr::v1::EmbedTextsResponse texts;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(embed({"a dog"}, &texts, 100).error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(900));
  vtr::v1::EmbedVideoResponse video;
  EXPECT_EQ(embed(clip(12, 1280, 720), &video, 1).error_code(), StatusCode::DEADLINE_EXCEEDED);
  server_->stop(std::chrono::seconds(30));
  EXPECT_EQ(server_->service().batcher().embedded(), 0u);
}

TEST_F(GrpcService, AMessageThatIsTooLargeIsRefused) {
  ServerOptions chosen = options();
  chosen.message_bytes = 1 << 16;
  start(chosen);
  vtr::v1::EmbedVideoResponse video;
  EXPECT_EQ(embed(clip(1, 200, 200), &video).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(embed(clip(1, 20, 20), &video).ok());
}

TEST_F(GrpcService, MoreThanMayWaitIsRefused) {
  ServerOptions chosen = options();
  chosen.service.batching.most_waiting = 2;
  start(chosen);
  vtr::v1::EmbedTextsResponse texts;
  EXPECT_EQ(embed({"a", "b", "c"}, &texts).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(embed({"a", "b"}, &texts).ok());
}

TEST_F(GrpcService, StoppingFinishesWhatRuns) {
  ServerOptions chosen = options();
  chosen.service.batching.wait = milliseconds(500);
  start(chosen);
  HealthCheckResponse response;
  ASSERT_TRUE(health(&response).ok());
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  grpc::Status status;
  std::thread running([&] {
    vtr::v1::EmbedTextsResponse texts;
    status = embed({"a dog"}, &texts);
  });
  std::this_thread::sleep_for(milliseconds(250));
  server_->stop(std::chrono::seconds(30));
  running.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(health(&response).error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(GrpcService, StoppingCancelsWhatTakesLongerThanTheGrace) {
  ServerOptions chosen = options();
  chosen.service.batching.wait = std::chrono::hours(1);
  start(chosen);
  grpc::Status status;
  std::thread running([&] {
    vtr::v1::EmbedTextsResponse texts;
    status = embed({"a dog"}, &texts);
  });
  std::this_thread::sleep_for(milliseconds(250));
  server_->stop(milliseconds(50));
  running.join();
  EXPECT_FALSE(status.ok());
}

TEST_F(GrpcService, ABundleThatIsNoneOrAPortThatIsTakenIsAnError) {
  ServerOptions chosen = options();
  chosen.service.bundle = data("nothing");
  EXPECT_THROW(Server{chosen}, vtr::Error);
  start();
  chosen = options();
  chosen.address = "127.0.0.1:" + std::to_string(server_->port());
  EXPECT_THROW(Server{chosen}, vtr::Error);
}

// The program itself: it says its port, serves, and ends with status 0 when it is asked to.
TEST_F(GrpcService, TheProgramEndsWithStatusZeroOnASignal) {
  for (const int signal : {SIGTERM, SIGINT}) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const std::string bundle = data("bundle");
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::execl(VTR_GRPC_SERVER, VTR_GRPC_SERVER, bundle.c_str(), "--listen", "127.0.0.1:0", nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    std::string line;
    for (char letter; ::read(ends[0], &letter, 1) == 1 && letter != '\n';) line += letter;
    ::close(ends[0]);
    ASSERT_EQ(line.rfind("listening on port ", 0), 0u) << line;
    channel_ = grpc::CreateChannel("127.0.0.1:" + line.substr(18), grpc::InsecureChannelCredentials());
    HealthCheckResponse response;
    EXPECT_TRUE(health(&response).ok());
    EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
    channel_.reset();  // an idle client sees the server go only seconds later
    ASSERT_EQ(::kill(child, signal), 0);
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
}

}  // namespace
