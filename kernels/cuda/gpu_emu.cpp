/* gpu_emu.cpp - gpu.h on the emulator: a stream is a thread that runs what is queued, a graph a
 * list of recorded calls with their dependencies.
 *
 * Strict where a device would be: a capture that is not joined, work that no capture may contain
 * and arguments outside this layer's memory are errors here too.  Under EMU_SEED streams dawdle at
 * random and graphs run in any order their dependencies allow.  EMU_FAULT=KERNEL[:N] makes the N-th
 * launch of a kernel fail as a device fault does. Owns streams, events, graphs.  Thread: as gpu.h
 * says. */
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_emu_mem.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <time.h>
#include <unistd.h>

/* What a stream does next: something, or a kernel, whose threads run it. */
struct call {
    std::function<void()> run;
    const gpu *g; /* of a kernel; else NULL */
    emu::launch_spec spec;
};

enum { DEVICES = 64 };

struct gpu {
    int device;
    gpu_info info;
    std::atomic<int> latch{0}; /* 0 free, 1 being written, 2 set */
    char msg[256];
};

/* A call in a capture and the calls it must follow. */
struct node {
    call run;
    std::vector<int> after;
};
struct capture {
    gpu_stream *origin;
    std::vector<node> nodes;
    std::set<gpu_stream *> streams;
};
struct gpu_graph {
    std::vector<node> nodes;
    std::atomic<int> queued{0}; /* launches that are not done */
};
struct gpu_stream {
    gpu *g;
    std::mutex lock;
    std::condition_variable work, idle;
    std::deque<call> queue; /* the first one is under way */
    bool quit = false;
    uint64_t rng = 0; /* the stream's thread's */
    std::shared_ptr<capture> cap;
    std::vector<int> frontier; /* in a capture: what the next call follows */
    std::thread thread;
};
/* Streams that have yet to record or to wait for an event outlive it. */
struct moment {
    std::mutex lock;
    std::condition_variable cv;
    uint64_t recorded = 0, done = 0;
    double ms = 0;
};
struct gpu_event {
    gpu *g;
    bool timed;
    std::shared_ptr<moment> m;
    std::shared_ptr<capture> cap; /* recorded in a capture: an edge, not a time */
    std::vector<int> frontier;
};

/* Captures this thread has begun: meanwhile it may not do what a capture cannot contain. */
static thread_local int capturing;

/* ---- the latch ---------------------------------------------------------------------------------
 */

const char *gpu_error(const gpu *g)
{
    return g->latch.load(std::memory_order_acquire) == 2 ? g->msg : nullptr;
}
void gpu_fail(gpu *g, const char *where, const char *words)
{
    int none = 0;
    if (!g->latch.compare_exchange_strong(none, 1)) return;
    snprintf(g->msg, sizeof g->msg, "%s: %s", where, words);
    g->latch.store(2, std::memory_order_release);
}
static bool failed(const gpu *g)
{
    return g->latch.load(std::memory_order_acquire) != 0;
}
/* True if the thread captures, which is then latched. */
static bool forbidden(gpu *g, const char *what)
{
    if (!capturing) return false;
    gpu_fail(g, what, "not allowed while this thread captures");
    return true;
}

/* ---- devices -----------------------------------------------------------------------------------
 */

int gpu_count(err *e)
{
    int n = emu::env_int("EMU_DEVICES", 4, 0, DEVICES);
    if (!n) err_set(e, ERR_NOTFOUND, "no device: EMU_DEVICES is 0");
    return n;
}

int gpu_open(gpu **out, int device, err *e)
{
    *out = nullptr;
    int n = gpu_count(e);
    if (!n) return ERR_NOTFOUND;
    if (device < 0 || device >= n)
        return err_set(e, ERR_NOTFOUND, "device %d: there are %d, numbered from 0", device, n);
    gpu *g = new gpu();
    g->device = device;
    snprintf(g->info.name, sizeof g->info.name, "emulated device %d", device);
    g->info.sms = emu::env_int("EMU_SMS", 4, 1, 1024);
    g->info.cc = 90;
    g->info.smem_block = emu::SHARED_LIMIT;
    g->info.smem_sm = emu::SHARED_LIMIT + 1024;
    g->info.l2 = (size_t)50 << 20;
    g->info.mem_total = emu_mem_total();
    g->info.emulated = true;
    *out = g;
    return 0;
}
void gpu_close(gpu *g)
{
    delete g;
}
const gpu_info *gpu_about(const gpu *g)
{
    return &g->info;
}
int gpu_device(const gpu *g)
{
    return g->device;
}

/* ---- memory ------------------------------------------------------------------------------------
 */

int gpu_mem_info(gpu *g, size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = emu_mem_total();
    *free_bytes = *total_bytes - emu_mem_used(g->device);
    return failed(g) ? ERR_DEVICE : 0;
}
void *gpu_malloc(gpu *g, size_t n)
{
    if (!n || failed(g) || forbidden(g, "gpu_malloc")) return nullptr;
    return emu_mem_alloc(g->device, n);
}
void gpu_free(gpu *g, void *p)
{
    if (p && !forbidden(g, "gpu_free")) emu_mem_free(g->device, p);
}
void *gpu_host_alloc(gpu *g, size_t n)
{
    if (!n || failed(g) || forbidden(g, "gpu_host_alloc")) return nullptr;
    return emu_mem_alloc(EMU_HOST, n);
}
void gpu_host_free(gpu *g, void *p)
{
    if (p && !forbidden(g, "gpu_host_free")) emu_mem_free(EMU_HOST, p);
}
int gpu_tmap_2d(gpu *g, void *map, const void *base, uint64_t width, uint64_t height, uint64_t ld,
                uint32_t box_w, uint32_t box_h)
{
    if (failed(g)) return ERR_DEVICE;
    bool fits = box_w == 64 && box_h >= 1 && box_h <= 256 && width && height && ld >= width;
    if (!fits || ld % 8 || (uintptr_t)base % 16 || (uintptr_t)map % 64) {
        gpu_fail(g, "gpu_tmap_2d",
                 "want a box of 64 by 1..256, rows and base 16-byte aligned, the "
                 "map 64-byte aligned");
        return ERR_DEVICE;
    }
    gpu_check_arg("gpu_tmap_2d", 3, base);
    *(cu_tmap *)map = {base, width, height, ld, box_w, box_h};
    return 0;
}

/* ---- streams -----------------------------------------------------------------------------------
 */

static bool fault_due(const char *kernel);

/* Runs calls one after the other.  A kernel launched to overlap with the one before it begins while
 * that has yet to run: so what it may not touch before cu_gdc_wait shows.  Whoever runs calls gives
 * each, in order, with the one that follows directly (or NULL). */
struct runner {
    emu::early_grid *begun = nullptr;
    static void enter(void *body)
    {
        (*(std::function<void()> *)body)();
    }
    void run(call &c, call *next)
    {
        emu::early_grid *mine = begun;
        begun = nullptr;
        if (!c.g) {
            c.run();
            return;
        }
        bool skip = !mine && failed(c.g);
        if (!skip && next && next->g && next->spec.pdl)
            begun = emu::begin_early(next->spec, enter, &next->run);
        if (!skip && fault_due(c.spec.name)) {
            gpu_fail((gpu *)c.g, c.spec.name, "fault asked for by EMU_FAULT");
            skip = !mine;
        }
        if (!skip) emu::launch(c.spec, enter, &c.run, mine);
    }
};

static void stream_main(gpu_stream *s)
{
    runner r;
    std::unique_lock<std::mutex> l(s->lock);
    for (;;) {
        if (s->queue.empty()) s->idle.notify_all();
        s->work.wait(l, [&] { return s->quit || !s->queue.empty(); });
        if (s->queue.empty()) return;
        /* Calls stay where they are until they have run: others are only put behind them. */
        call *c = &s->queue[0], *next = s->queue.size() > 1 ? &s->queue[1] : nullptr;
        l.unlock();
        if (s->rng) usleep((unsigned)(emu::next_random(s->rng) & 255));
        r.run(*c, next);
        l.lock();
        s->queue.pop_front();
    }
}

static void push(gpu_stream *s, call f)
{
    bool wake;
    {
        std::lock_guard<std::mutex> l(s->lock);
        wake = s->queue.empty();
        s->queue.push_back(std::move(f));
    }
    if (wake) s->work.notify_one();
}

/* Queues a call, or records it. */
static void submit(gpu_stream *s, call f)
{
    gpu *g = s->g;
    if (failed(g)) return;
    if (!s->cap) {
        push(s, std::move(f));
        return;
    }
    int id = (int)s->cap->nodes.size();
    s->cap->nodes.push_back({std::move(f), std::move(s->frontier)});
    s->frontier.assign(1, id);
}

static void submit_fn(gpu_stream *s, std::function<void()> fn)
{
    submit(s, {std::move(fn), nullptr, {}});
}
static void push_fn(gpu_stream *s, std::function<void()> fn)
{
    push(s, {std::move(fn), nullptr, {}});
}

gpu_stream *gpu_stream_new(gpu *g)
{
    static std::atomic<uint64_t> count{0};
    if (failed(g)) return nullptr;
    gpu_stream *s = new gpu_stream();
    s->g = g;
    if (emu::seed()) s->rng = emu::seed() * 77 + ++count;
    s->thread = std::thread(stream_main, s);
    return s;
}
void gpu_stream_free(gpu_stream *s)
{
    if (!s) return;
    {
        std::lock_guard<std::mutex> l(s->lock);
        s->quit = true;
    }
    s->work.notify_all();
    s->thread.join();
    delete s;
}
int gpu_stream_sync(gpu_stream *s)
{
    if (s->cap) gpu_fail(s->g, "gpu_stream_sync", "not allowed on a stream that is captured");
    forbidden(s->g, "gpu_stream_sync");
    {
        std::unique_lock<std::mutex> l(s->lock);
        s->idle.wait(l, [&] { return s->queue.empty(); });
    }
    emu_mem_check();
    return failed(s->g) ? ERR_DEVICE : 0;
}
gpu *gpu_of(const gpu_stream *s)
{
    return s->g;
}
void *gpu_stream_raw(gpu_stream *)
{
    return nullptr;
}

void gpu_memcpy_async(void *dst, const void *src, size_t n, gpu_stream *s)
{
    gpu *g = s->g;
    if (n)
        submit_fn(s, [=] {
            if (!failed(g)) memmove(dst, src, n);
        });
}
void gpu_memset_async(void *dst, int byte, size_t n, gpu_stream *s)
{
    gpu *g = s->g;
    if (n)
        submit_fn(s, [=] {
            if (!failed(g)) memset(dst, byte, n);
        });
}
void gpu_host_fn(gpu_stream *s, void (*fn)(void *arg), void *arg)
{
    gpu *g = s->g;
    submit_fn(s, [=] {
        if (!failed(g)) fn(arg);
    });
}

/* True if EMU_FAULT names this launch. */
static bool fault_due(const char *kernel)
{
    static std::atomic<int> launches{0};
    const char *f = getenv("EMU_FAULT");
    if (!f || !*f) return false;
    const char *colon = strrchr(f, ':');
    size_t n = colon ? (size_t)(colon - f) : strlen(f);
    int nth = colon ? atoi(colon + 1) : 1;
    if (memmem(kernel, strlen(kernel), f, n) == nullptr) return false;
    return ++launches == nth;
}

void gpu_push_kernel(gpu_stream *s, const emu::launch_spec &k, std::function<void()> body)
{
    gpu *g = s->g;
    size_t threads = (size_t)k.block.x * k.block.y * k.block.z;
    if (!threads || threads > emu::MAX_THREADS || !k.grid.x || !k.grid.y || !k.grid.z ||
        k.grid.y > 65535 || k.grid.z > 65535 || k.smem > emu::SHARED_LIMIT) {
        char words[160];
        snprintf(words, sizeof words,
                 "grid (%u,%u,%u), block (%u,%u,%u), %zu bytes of shared memory "
                 "cannot be launched",
                 k.grid.x, k.grid.y, k.grid.z, k.block.x, k.block.y, k.block.z, k.smem);
        gpu_fail(g, k.name, words);
        return;
    }
    submit(s, {std::move(body), g, k});
}

/* ---- events ------------------------------------------------------------------------------------
 */

gpu_event *gpu_event_new(gpu *g, bool timed)
{
    if (failed(g)) return nullptr;
    gpu_event *e = new gpu_event();
    e->g = g;
    e->timed = timed;
    e->m = std::make_shared<moment>();
    return e;
}
void gpu_event_free(gpu_event *e)
{
    delete e;
}

static void reach(moment *m, uint64_t n)
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    std::lock_guard<std::mutex> l(m->lock);
    if (m->done < n) m->done = n;
    m->ms = (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
    m->cv.notify_all();
}
static void await(moment *m, uint64_t n)
{
    std::unique_lock<std::mutex> l(m->lock);
    m->cv.wait(l, [&] { return m->done >= n; });
}
static uint64_t last_record(moment *m)
{
    std::lock_guard<std::mutex> l(m->lock);
    return m->recorded;
}

void gpu_event_record(gpu_event *e, gpu_stream *s)
{
    if (failed(s->g)) return;
    e->cap = s->cap;
    if (s->cap) {
        e->frontier = s->frontier;
        return;
    }
    std::shared_ptr<moment> m = e->m;
    uint64_t n;
    {
        std::lock_guard<std::mutex> l(m->lock);
        n = ++m->recorded;
    }
    push_fn(s, [=] { reach(m.get(), n); });
}
bool gpu_event_done(gpu_event *e)
{
    if (e->cap) gpu_fail(e->g, "gpu_event_done", "not allowed on an event recorded in a capture");
    std::lock_guard<std::mutex> l(e->m->lock);
    return e->m->done >= e->m->recorded;
}
int gpu_event_sync(gpu_event *e)
{
    if (e->cap) gpu_fail(e->g, "gpu_event_sync", "not allowed on an event recorded in a capture");
    forbidden(e->g, "gpu_event_sync");
    await(e->m.get(), last_record(e->m.get()));
    emu_mem_check();
    return failed(e->g) ? ERR_DEVICE : 0;
}
float gpu_event_ms(gpu_event *from, gpu_event *to)
{
    if (!from->timed || !to->timed || !gpu_event_done(from) || !gpu_event_done(to)) {
        gpu_fail(from->g, "gpu_event_ms", "want two timed events that are done");
        return 0;
    }
    return (float)(to->m->ms - from->m->ms);
}

void gpu_stream_wait(gpu_stream *s, gpu_event *e)
{
    if (failed(s->g)) return;
    if (e->cap) {
        if (s->cap && s->cap != e->cap) {
            gpu_fail(s->g, "gpu_stream_wait", "joins two captures");
            return;
        }
        if (!s->cap) {
            s->cap = e->cap;
            s->frontier.clear();
            s->cap->streams.insert(s);
        }
        for (int id : e->frontier) {
            bool known = false;
            for (int have : s->frontier) known |= have == id;
            if (!known) s->frontier.push_back(id);
        }
        return;
    }
    if (s->cap) {
        gpu_fail(s->g, "gpu_stream_wait",
                 "a captured stream waits for an event outside the capture");
        return;
    }
    std::shared_ptr<moment> m = e->m;
    uint64_t n = last_record(m.get());
    if (n) push_fn(s, [=] { await(m.get(), n); });
}

/* ---- graphs ------------------------------------------------------------------------------------
 */

void gpu_capture_begin(gpu_stream *s)
{
    if (failed(s->g)) return;
    if (s->cap) {
        gpu_fail(s->g, "gpu_capture_begin", "the stream is captured already");
        return;
    }
    s->cap = std::make_shared<capture>();
    s->cap->origin = s;
    s->cap->streams.insert(s);
    s->frontier.clear();
    capturing++;
}

/* True if every call comes before those in `ends`. */
static bool all_before(const std::vector<node> &nodes, std::vector<int> ends)
{
    std::vector<bool> seen(nodes.size(), false);
    size_t n = 0;
    while (!ends.empty()) {
        int id = ends.back();
        ends.pop_back();
        if (seen[(size_t)id]) continue;
        seen[(size_t)id] = true;
        n++;
        for (int a : nodes[(size_t)id].after) ends.push_back(a);
    }
    return n == nodes.size();
}

gpu_graph *gpu_capture_end(gpu_stream *s)
{
    std::shared_ptr<capture> c = s->cap;
    if (!c || c->origin != s) {
        gpu_fail(s->g, "gpu_capture_end", "this stream did not begin a capture");
        return nullptr;
    }
    capturing--;
    bool joined = all_before(c->nodes, s->frontier);
    for (gpu_stream *t : c->streams) {
        t->cap = nullptr;
        t->frontier.clear();
    }
    if (!joined) gpu_fail(s->g, "gpu_capture_end", "a forked stream was not joined");
    if (failed(s->g)) return nullptr;
    gpu_graph *g = new gpu_graph();
    g->nodes = std::move(c->nodes);
    return g;
}

/* Recorded order is one that dependencies allow; under a seed any other is tried. */
static std::vector<int> order_of(const gpu_graph *g, uint64_t rng)
{
    std::vector<int> left(g->nodes.size()), order;
    for (size_t i = 0; i < left.size(); i++) left[i] = (int)i;
    if (!rng) return left;
    std::vector<bool> done(left.size(), false);
    while (!left.empty()) {
        size_t k = emu::next_random(rng) % left.size();
        for (bool free = false; !free; k = free ? k : (k + 1) % left.size()) {
            free = true;
            for (int a : g->nodes[(size_t)left[k]].after) free &= done[(size_t)a];
        }
        done[(size_t)left[k]] = true;
        order.push_back(left[k]);
        left.erase(left.begin() + (long)k);
    }
    return order;
}

static void replay(gpu_graph *g, uint64_t rng)
{
    std::vector<int> order = order_of(g, rng);
    runner r;
    for (size_t i = 0; i < order.size(); i++) {
        node *next = i + 1 < order.size() ? &g->nodes[(size_t)order[i + 1]] : nullptr;
        bool follows = next && next->after.size() == 1 && next->after[0] == order[i];
        r.run(g->nodes[(size_t)order[i]].run, follows ? &next->run : nullptr);
    }
}
void gpu_graph_launch(gpu_graph *g, gpu_stream *s)
{
    if (s->cap) {
        gpu_fail(s->g, "gpu_graph_launch", "not allowed on a stream that is captured");
        return;
    }
    if (failed(s->g)) return;
    g->queued++;
    push_fn(s, [=] {
        replay(g, s->rng ? emu::next_random(s->rng) | 1 : 0);
        g->queued--;
    });
}
void gpu_graph_free(gpu_graph *g)
{
    if (g && g->queued.load()) emu::die("a graph is freed before its launches are done");
    delete g;
}
