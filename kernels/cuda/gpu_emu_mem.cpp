/* gpu_emu_mem.cpp - see gpu_emu_mem.h.
 *
 *   | guard | moat ... | the buffer | moat to the next 256 bytes | guard |
 *
 * A store just past the end lands in the moat, found at the next wait or at the free; one further
 * away meets the guard and is reported where it happens.  Thread: any, under one lock. */
#include "kernels/cuda/gpu_emu_mem.h"
#include "kernels/cuda/emu_run.h"
#include "kernels/cuda/gpu.h"

#include <map>
#include <mutex>
#include <sys/mman.h>

#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

static const size_t PAGE = 4096, ALIGN = 256, FRONT = 64;
static const size_t GUARD = 1 << 20; /* address space only: strays may go far */
static const unsigned char MOAT_BYTE = 0xc5;
static const size_t KEPT = 1024; /* freed buffers whose addresses are not given out again */

struct buffer {
    char *map;
    size_t map_bytes, n;
    int device;
    bool freed;
};
static std::mutex lock;
static std::map<char *, buffer> buffers; /* by first byte */
static std::map<int, size_t> used;
static std::vector<char *> grave; /* freed, oldest first */

size_t emu_mem_total(void)
{
    return (size_t)emu::env_int("EMU_MEM", 512, 1, 1 << 20) << 20;
}
size_t emu_mem_used(int device)
{
    std::lock_guard<std::mutex> l(lock);
    return used[device];
}

/* The buffer whose mapping holds p. */
static std::map<char *, buffer>::iterator around(const void *p)
{
    auto it = buffers.upper_bound((char *)p);
    if (it != buffers.end() && (char *)p >= it->second.map) return it;
    if (it == buffers.begin()) return buffers.end();
    --it;
    return (char *)p < it->second.map + it->second.map_bytes ? it : buffers.end();
}

static bool describe(const void *q, char *out, size_t n)
{
    std::unique_lock<std::mutex> l(lock, std::try_to_lock);
    auto it = l.owns_lock() ? around(q) : buffers.end();
    if (!l.owns_lock() || it == buffers.end()) return false;
    const buffer &b = it->second;
    snprintf(out, n, "byte %ld of a %s%zu-byte buffer of %s memory", (long)((char *)q - it->first),
             b.freed ? "freed " : "", b.n, b.device == EMU_HOST ? "pinned" : "device");
    return true;
}

/* Sets or checks the known bytes beside a buffer; true if they are whole. */
static bool moat(char *p, const buffer &b, bool set)
{
    char *front = p - b.map > (long)(GUARD + FRONT) ? p - FRONT : b.map + GUARD;
    char *end = b.map + b.map_bytes - GUARD, *part[2][2] = {{front, p}, {p + b.n, end}};
    bool whole = true;
    for (auto &r : part) {
        size_t n = (size_t)(r[1] - r[0]);
        if (!n) continue;
        if (set) {
            memset(r[0], MOAT_BYTE, n);
#if EMU_ASAN
            ASAN_POISON_MEMORY_REGION(r[0], n);
#endif
            continue;
        }
#if EMU_ASAN
        continue; /* the sanitizer reports the store itself */
#endif
        for (size_t i = 0; i < n; i++) whole &= (unsigned char)r[0][i] == MOAT_BYTE;
    }
    return whole;
}

void *emu_mem_alloc(int device, size_t n)
{
    emu::describe_faults(describe);
    size_t room = (n + ALIGN - 1) / ALIGN * ALIGN;
    if (n > (size_t)1 << 46) return nullptr;
    std::lock_guard<std::mutex> l(lock);
    if (device != EMU_HOST && room > emu_mem_total() - used[device]) return nullptr;
    buffer b = {nullptr, (room + PAGE - 1) / PAGE * PAGE + 2 * GUARD, n, device, false};
    void *m =
        mmap(nullptr, b.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) return nullptr;
    b.map = (char *)m;
    if (mprotect(b.map + GUARD, b.map_bytes - 2 * GUARD, PROT_READ | PROT_WRITE)) {
        munmap(m, b.map_bytes);
        return nullptr;
    }
    char *p = b.map + b.map_bytes - GUARD - room;
    memset(p, 0xff, n);
    moat(p, b, true);
    used[device] += room;
    buffers[p] = b;
    return p;
}

static void check_one(char *p, const buffer &b)
{
    if (!b.freed && !moat(p, b, false))
        emu::die("something wrote beside the %zu-byte buffer %p of %s memory", b.n, (void *)p,
                 b.device == EMU_HOST ? "pinned" : "device");
}

static void bury(char *p, buffer &b)
{
#if EMU_ASAN
    ASAN_UNPOISON_MEMORY_REGION(b.map, b.map_bytes);
#endif
    b.freed = true;
    madvise(b.map, b.map_bytes, MADV_DONTNEED);
    mprotect(b.map, b.map_bytes, PROT_NONE);
    grave.push_back(p);
    if (grave.size() <= KEPT) return;
    auto oldest = buffers.find(grave.front());
    munmap(oldest->second.map, oldest->second.map_bytes);
    buffers.erase(oldest);
    grave.erase(grave.begin());
}

void emu_mem_free(int device, void *q)
{
    char *p = (char *)q;
    std::lock_guard<std::mutex> l(lock);
    auto it = buffers.find(p);
    if (it == buffers.end()) emu::die("free of %p, which is no buffer", q);
    buffer &b = it->second;
    if (b.freed) emu::die("second free of %p", q);
    if (b.device != device)
        emu::die("buffer %p belongs to device %d, freed on %d", q, b.device, device);
    check_one(p, b);
    used[device] -= (b.n + ALIGN - 1) / ALIGN * ALIGN;
    bury(p, b);
}

void emu_mem_check(void)
{
    std::lock_guard<std::mutex> l(lock);
    for (auto &it : buffers) check_one(it.first, it.second);
}

void gpu_check_arg(const char *kernel, int index, const volatile void *p)
{
    if (!p) return;
    std::lock_guard<std::mutex> l(lock);
    auto it = around((const void *)p);
    if (it == buffers.end())
        emu::die("argument %d of %s, %p, is no memory of a device", index, kernel, (const void *)p);
    if (it->second.freed)
        emu::die("argument %d of %s, %p, was freed", index, kernel, (const void *)p);
}
