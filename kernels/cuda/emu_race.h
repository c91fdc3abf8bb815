/* emu_race.h - what the thread sanitizer is told, so that it finds data races between the threads
 * of a block: every CUDA thread is a thread of its own to it, ordered with others only by barriers,
 * by atomics and by the start and end of a launch.  The emulator's own work between them is hidden.
 * Empty in other builds.  Owns nothing.  Thread: any. */
#ifndef QUERN_KERNELS_CUDA_EMU_RACE_H
#define QUERN_KERNELS_CUDA_EMU_RACE_H

#include <stddef.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define EMU_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define EMU_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define EMU_TSAN 1
#endif
#ifndef EMU_ASAN
#define EMU_ASAN 0
#endif
#ifndef EMU_TSAN
#define EMU_TSAN 0
#endif

#if EMU_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreReadsBegin(const char *file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char *file, int line);
extern "C" void AnnotateIgnoreWritesBegin(const char *file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char *file, int line);
extern "C" void __tsan_read_range(void *p, unsigned long n);
#endif

namespace emu
{

#if EMU_TSAN
/* While it lives, this thread's accesses are not looked at. */
struct unseen {
    unseen()
    {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~unseen()
    {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
};
/* What a thread did before `before(p)` comes before what one does after a later `after(p)`. */
static inline void before(const void *p)
{
    __tsan_release((void *)p);
}
static inline void after(const void *p)
{
    __tsan_acquire((void *)p);
}
/* This thread reads p, whoever does it for it. */
static inline void reads(const void *p, size_t n)
{
    __tsan_read_range((void *)p, n);
}
#else
struct unseen {
    unseen()
    {
    }
};
static inline void before(const void *)
{
}
static inline void after(const void *)
{
}
static inline void reads(const void *, size_t)
{
}
#endif

} // namespace emu

#endif
