/* emu_launch.cpp - grids: which OS thread runs which block, and shared memory.
 *
 * A block sits on a seat: its state, stacks and shared memory.  An OS thread has two, since a grid
 * may have begun while its predecessor runs.  The thread that launches runs blocks itself.  Only
 * when a grid has kept it busy for a while does it ask the pool for company, so small kernels wake
 * nobody. Owns the pool and the seats.  Refuses impossible grids.  Thread: any. */
#include "kernels/cuda/emu.h"
#include "kernels/cuda/emu_fibre.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <time.h>
#include <unistd.h>

namespace emu
{

/* ---- settings ----------------------------------------------------------------------------- */

int env_int(const char *name, int fallback, int low, int high)
{
    const char *s = getenv(name);
    if (!s || !*s) return fallback;
    char *end;
    long v = strtol(s, &end, 10);
    if (*end || v < low || v > high) die("%s=%s: want a number from %d to %d", name, s, low, high);
    return (int)v;
}

static uint64_t seed_of_env(void)
{
    const char *s = getenv("EMU_SEED");
    if (!s || !*s) return 0;
    char *end;
    uint64_t v = strtoull(s, &end, 10);
    if (*end) die("EMU_SEED=%s: want a number", s);
    return v;
}
static std::atomic<uint64_t> &the_seed(void)
{
    static std::atomic<uint64_t> s(seed_of_env());
    return s;
}
void set_seed(uint64_t s)
{
    the_seed() = s;
}
uint64_t seed()
{
    return the_seed();
}

/* ---- shared memory ------------------------------------------------------------------------ */

enum { MOAT = 64, MAX_SHARED_VARS = 64 };
static const unsigned char MOAT_BYTE = 0xc5;

struct shared_entry {
    const void *site;
    char *at;
    size_t bytes;
    const char *name;
};
/* Dynamic memory [SHARED_LIMIT] and its moat; static variables with a moat behind each. */
struct shared_memory {
    char *raw, *dyn, *vars;
    size_t used;
    int n;
    shared_entry entry[MAX_SHARED_VARS];
};
enum { VARS_BYTES = STATIC_LIMIT + MAX_SHARED_VARS * (MOAT + 1024) };

struct seat {
    block b{};
    fibres set;
    shared_memory mem{};
    bool taken = false;
    seat()
    {
        b.fibres = &set;
        b.shared = &mem;
        describe_faults(nullptr);
        size_t n = DYN_ALIGN + SHARED_LIMIT + MOAT + DYN_ALIGN + VARS_BYTES;
        mem.raw = (char *)malloc(n);
        if (!mem.raw) die("no memory for shared memory");
        mem.dyn = (char *)(((uintptr_t)mem.raw + DYN_ALIGN - 1) & ~(uintptr_t)(DYN_ALIGN - 1));
        mem.vars = mem.dyn + SHARED_LIMIT + DYN_ALIGN;
        b.dyn = mem.dyn;
    }
    ~seat()
    {
#if EMU_ASAN
        ASAN_UNPOISON_MEMORY_REGION(mem.dyn, SHARED_LIMIT + DYN_ALIGN + VARS_BYTES);
#endif
        free(mem.raw);
    }
};

static seat *take_seat(void)
{
    static thread_local std::unique_ptr<seat> mine[2];
    for (auto &s : mine) {
        if (!s) s = std::make_unique<seat>();
        if (s->taken) continue;
        s->taken = true;
        return s.get();
    }
    die("two grids have begun already");
}

static void moat_fill(char *p)
{
    memset(p, MOAT_BYTE, MOAT);
#if EMU_ASAN
    ASAN_POISON_MEMORY_REGION(p, MOAT);
#endif
}
static bool moat_whole(char *p)
{
#if EMU_ASAN
    ASAN_UNPOISON_MEMORY_REGION(p, MOAT);
#endif
    for (int i = 0; i < MOAT; i++)
        if ((unsigned char)p[i] != MOAT_BYTE) return false;
    return true;
}

void shared_poison()
{
    shared_memory &m = *blk->shared;
    size_t n = blk->spec.smem;
    memset(m.dyn, 0xff, n);
    moat_fill(m.dyn + n);
    m.used = 0;
    m.n = 0;
}

void shared_check()
{
    shared_memory &m = *blk->shared;
    if (!moat_whole(m.dyn + blk->spec.smem))
        die("wrote past its %zu bytes of dynamic shared memory", blk->spec.smem);
    for (int i = 0; i < m.n; i++) {
        if (!moat_whole(m.entry[i].at + m.entry[i].bytes))
            die("wrote past the end of shared variable %s", m.entry[i].name);
    }
}

void *shared_var(const void *site, size_t bytes, size_t align, const char *name)
{
    unseen u;
    shared_memory &m = *blk->shared;
    for (int i = 0; i < m.n; i++)
        if (m.entry[i].site == site) return m.entry[i].at;
    if (m.n == MAX_SHARED_VARS) die("more than %d shared variables", MAX_SHARED_VARS);
    size_t total = bytes;
    for (int i = 0; i < m.n; i++) total += m.entry[i].bytes;
    if (total > STATIC_LIMIT || total + blk->spec.smem > SHARED_LIMIT)
        die("shared variable %s: %zu bytes of variables and %zu dynamic exceed what a block has",
            name, total, blk->spec.smem);
    char *at = m.vars + ((m.used + align - 1) & ~(align - 1));
    memset(at, 0xff, bytes);
    moat_fill(at + bytes);
    m.used = (size_t)(at - m.vars) + bytes + MOAT;
    m.entry[m.n++] = {site, at, bytes, name};
    return at;
}

/* ---- grids -------------------------------------------------------------------------------- */

struct job {
    launch_spec spec;
    void (*entry)(void *);
    void *arg;
    size_t n, first; /* block `first` changes places with block 0 */
    uint64_t seed;
    std::atomic<size_t> next{0};
    int helpers = 0; /* under the pool's lock */
};
struct early_grid {
    job j;
    seat *at;
    bool over; /* the block that had begun has ended */
};

/* How long a launching thread works alone, ns: waking another costs it some 10 us. */
enum { ALONE_NS = 40000 };

static int64_t now_ns(void)
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

static void job_set(job *j, const launch_spec &spec, void (*entry)(void *), void *arg)
{
    static std::atomic<uint64_t> count{0};
    const dim3 &g = spec.grid, &d = spec.block;
    size_t threads = (size_t)d.x * d.y * d.z;
    j->n = (size_t)g.x * g.y * g.z;
    if (!threads || threads > MAX_THREADS || d.z > 64 || !j->n || g.y > 65535 || g.z > 65535 ||
        spec.smem > SHARED_LIMIT)
        die("kernel %s cannot be launched: grid (%u,%u,%u), block (%u,%u,%u), %zu bytes of shared "
            "memory",
            spec.name, g.x, g.y, g.z, d.x, d.y, d.z, spec.smem);
    j->spec = spec;
    j->entry = entry;
    j->arg = arg;
    uint64_t s = seed();
    j->seed = s ? s * 0xd1342543de82ef95ull + ++count * 0x2545f4914f6cdd1dull : 0;
    j->first = s ? (j->seed >> 32) % j->n : 0;
}

/* Runs the i-th block of the job. */
static bool run_nth(job *j, block *b, size_t i, bool early)
{
    const dim3 &g = j->spec.grid;
    size_t k = i == 0 ? j->first : i == j->first ? 0 : i;
    uint3 bid = {(unsigned)(k % g.x), (unsigned)(k / g.x % g.y),
                 (unsigned)(k / ((size_t)g.x * g.y))};
    uint64_t rng = j->seed ? (j->seed + k) * 0x9e3779b97f4a7c15ull | 1 : 0;
    return block_run(b, bid, rng, early);
}

/* Runs blocks of the job until none is left, or until `give_up_at` (0: never). */
static void work(job *j, block *b, int64_t give_up_at)
{
    blk = b;
    block_begin_grid(b, j->spec, j->entry, j->arg);
    for (;;) {
        size_t i = j->next.fetch_add(1);
        if (i >= j->n) break;
        run_nth(j, b, i, false);
        if (give_up_at && i + 1 < j->n && now_ns() > give_up_at) break;
    }
    blk = nullptr;
}

struct pool {
    std::mutex lock;
    std::condition_variable wake, left;
    std::vector<job *> open;
    std::vector<std::thread> threads;
    int size;
    bool quit = false;
    pool()
    {
        int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
        size = env_int("EMU_THREADS", cpus < 1 ? 1 : cpus > 16 ? 16 : cpus, 1, 64) - 1;
    }
    ~pool()
    {
        {
            std::lock_guard<std::mutex> l(lock);
            quit = true;
        }
        wake.notify_all();
        for (auto &t : threads) t.join();
    }
    void run()
    {
        seat *at = take_seat();
        std::unique_lock<std::mutex> l(lock);
        for (;;) {
            wake.wait(l, [&] { return quit || !open.empty(); });
            if (quit) return;
            job *j = open.back();
            j->helpers++;
            l.unlock();
            work(j, &at->b, 0);
            l.lock();
            close(j);
            if (!--j->helpers) left.notify_all();
        }
    }
    void close(job *j) /* lock held */
    {
        for (size_t i = 0; i < open.size(); i++)
            if (open[i] == j) open.erase(open.begin() + (long)i--);
    }
    /* The rest of a job, with company. */
    void share(job *j, block *b)
    {
        {
            std::lock_guard<std::mutex> l(lock);
            while ((int)threads.size() < size) threads.emplace_back([this] { run(); });
            open.push_back(j);
        }
        wake.notify_all();
        work(j, b, 0);
        std::unique_lock<std::mutex> l(lock);
        close(j);
        left.wait(l, [&] { return !j->helpers; });
    }
};
static pool &the_pool(void)
{
    static pool p;
    return p;
}

early_grid *begin_early(const launch_spec &spec, void (*entry)(void *), void *arg)
{
    early_grid *e = new early_grid();
    job_set(&e->j, spec, entry, arg);
    e->at = take_seat();
    blk = &e->at->b;
    block_begin_grid(blk, spec, entry, arg);
    e->j.next = 1;
    e->over = run_nth(&e->j, blk, 0, true);
    blk = nullptr;
    return e;
}

void launch(const launch_spec &spec, void (*entry)(void *), void *arg, early_grid *begun)
{
    if (blk) die("a kernel launches a kernel");
    std::unique_ptr<early_grid> owned(begun);
    job fresh, *j = begun ? &begun->j : &fresh;
    seat *at = begun ? begun->at : take_seat();
    if (!begun) job_set(j, spec, entry, arg);
    if (begun && !begun->over) {
        blk = &at->b;
        block_resume(blk);
    }
    pool &p = the_pool();
    bool alone = j->n == 1 || p.size == 0;
    work(j, &at->b, alone ? 0 : now_ns() + ALONE_NS);
    if (!alone && j->next.load() < j->n) p.share(j, &at->b);
    at->taken = false;
}

} // namespace emu
