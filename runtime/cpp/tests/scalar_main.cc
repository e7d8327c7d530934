// The tests of videos with FFmpeg's vector code switched off, which is so for the whole process.
#include <gtest/gtest.h>

extern "C" {
#include <libavutil/cpu.h>
}

int main(int count, char **words) {
  av_force_cpu_flags(0);
  testing::InitGoogleTest(&count, words);
  return RUN_ALL_TESTS();
}
