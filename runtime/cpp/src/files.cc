#include "files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace vtr::internal {
namespace {

// An open regular file. Opened without waiting, so that a FIFO is refused and does not block.
class Descriptor {
 public:
  Descriptor(const std::string &path, vtr_code code) : path_(path), code_(code) {
    number_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (number_ < 0) fail(std::strerror(errno));
    struct stat found {};
    if (::fstat(number_, &found) != 0) {
      const int reason = errno;
      ::close(number_);
      fail(std::strerror(reason));
    }
    if (!S_ISREG(found.st_mode)) {
      ::close(number_);
      fail("it is not a regular file");
    }
    size_ = static_cast<size_t>(found.st_size);
  }
  ~Descriptor() { ::close(number_); }
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;

  size_t size() const { return size_; }
  int number() const { return number_; }

  // Up to `most` bytes, 0 at the end.
  size_t read(void *into, size_t most) const {
    for (;;) {
      const ssize_t got = ::read(number_, into, most);
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EINTR) fail(std::strerror(errno));
    }
  }
  [[noreturn]] void fail(const std::string &why) const {
    throw Error(code_, path_ + " cannot be read (" + why + "); give a file that is there and readable");
  }

 private:
  std::string path_;
  vtr_code code_;
  int number_ = -1;
  size_t size_ = 0;
};

class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) throw std::bad_alloc();
  }
  void add(const void *data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  void finish(uint8_t *out) { EVP_DigestFinal_ex(context_.get(), out, nullptr); }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX *)> context_;
};

}  // namespace

MappedFile::MappedFile(const std::string &path, vtr_code code) {
  const Descriptor file(path, code);
  size_ = file.size();
  if (size_ == 0) return;
  void *mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (mapped == MAP_FAILED) file.fail(std::strerror(errno));
  data_ = static_cast<const uint8_t *>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t *>(data_), size_);
}

MappedFile::MappedFile(MappedFile &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

std::string read_file(const std::string &path, size_t most, vtr_code code) {
  const Descriptor file(path, code);
  if (file.size() > most) {
    throw Error(code, path + " has " + std::to_string(file.size()) + " bytes, more than the " + std::to_string(most) +
                          " that such a file may have; copy the bundle again, or export it anew");
  }
  std::string bytes(file.size(), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t got = file.read(bytes.data() + done, bytes.size() - done);
    if (got == 0) break;
    done += got;
  }
  bytes.resize(done);
  return bytes;
}

std::string file_sha256(const std::string &path, vtr_code code) {
  const Descriptor file(path, code);
  Digest digest;
  std::array<uint8_t, 1 << 16> block;
  while (const size_t got = file.read(block.data(), block.size())) digest.add(block.data(), got);
  std::array<uint8_t, 32> bytes;
  digest.finish(bytes.data());
  static const char *const kDigits = "0123456789abcdef";
  std::string hex;
  for (const uint8_t byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

void sha256(const void *data, size_t size, uint8_t *out) {
  Digest digest;
  digest.add(data, size);
  digest.finish(out);
}

}  // namespace vtr::internal
