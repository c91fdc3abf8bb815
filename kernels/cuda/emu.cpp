/* emu.cpp - the order in which a block's threads run, and where they wait.
 *
 * A thread gets a fibre when it first runs; a fibre whose thread has returned takes the next thread
 * that has not started, on the same stack, without a switch: kernels that never wait cost a call
 * per thread.  The scheduler stays with a warp until none of its lanes can go on, which keeps its
 * stacks in the cache.  Owns the block's progress.  Refuses (aborts) what emu.h says. Thread: the
 * one that runs the block. */
#include "kernels/cuda/emu.h"
#include "kernels/cuda/emu_fibre.h"

#include <stdarg.h>

namespace emu
{

__thread block *blk;

void die(const char *fmt, ...)
{
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    block *b = blk;
    if (b && b->cur) {
        uint3 t = b->cur->tid;
        fprintf(stderr, "emu: kernel %s, block (%u,%u,%u), thread (%u,%u,%u): %s\n", b->spec.name,
                b->bid.x, b->bid.y, b->bid.z, t.x, t.y, t.z, msg);
    } else {
        fprintf(stderr, "emu: kernel %s: %s\n", b && b->spec.name ? b->spec.name : "(none)", msg);
    }
    fflush(stderr);
    abort();
}

/* ---- who runs next ------------------------------------------------------------------------ */

static inline void set_ready(block *b, thread *t)
{
    b->warps[t->warp].ready |= 1u << t->lane;
    b->ready_warps |= 1u << t->warp;
}
void wake(thread *t)
{
    t->state = READY;
    set_ready(blk, t);
}
static void wake_lanes(block *b, int w, unsigned lanes)
{
    for (unsigned m = lanes; m; m &= m - 1) b->threads[w * WARP + __builtin_ctz(m)].state = READY;
    b->warps[w].ready |= lanes;
    b->ready_warps |= 1u << w;
}

static unsigned pick_bit(unsigned set, uint64_t r)
{
    for (int k = (int)(r % (unsigned)__builtin_popcount(set)); k; k--) set &= set - 1;
    return (unsigned)__builtin_ctz(set);
}

/* Now and then a warp is held back while the others run far ahead. */
static unsigned unheld(block *b)
{
    if ((next_random(b->rng) & 31) == 0) b->held_warps ^= 1u << (next_random(b->rng) & 31);
    unsigned set = b->ready_warps & ~b->held_warps;
    if (!set) {
        b->held_warps = 0;
        set = b->ready_warps;
    }
    return set;
}

static void land_bulks(block *b, const mbar *bar);

/* Takes a thread out of the ready ones; NULL when none is left. */
static thread *pick(block *b)
{
    if (!b->ready_warps && b->live && !b->bulks.empty()) land_bulks(b, nullptr);
    if (!b->ready_warps) return nullptr;
    int w = b->cur_warp;
    unsigned lane;
    if (b->rng) {
        if (!b->bulks.empty() && (next_random(b->rng) & 15) == 0) land_bulks(b, nullptr);
        w = (int)pick_bit(unheld(b), next_random(b->rng));
        lane = pick_bit(b->warps[w].ready, next_random(b->rng));
    } else {
        if (!b->warps[w].ready) { /* the next warp in turn */
            unsigned later = b->ready_warps & ~((2u << w) - 1);
            w = __builtin_ctz(later ? later : b->ready_warps);
        }
        lane = (unsigned)__builtin_ctz(b->warps[w].ready);
    }
    b->cur_warp = w;
    warp *wp = &b->warps[w];
    thread *lanes = &b->threads[w * WARP];
    wp->ready &= ~(1u << lane);
    if (!wp->ready) {
        b->ready_warps &= ~(1u << w);
    } else { /* most of a switch is waiting for the other stack to come from memory */
        const fibre *soon = lanes[__builtin_ctz(wp->ready)].fib;
        if (soon) {
            __builtin_prefetch(soon->sp);
            __builtin_prefetch((char *)soon->sp + 64);
            __builtin_prefetch((char *)soon->sp + 128);
        }
    }
    return &lanes[lane];
}

[[noreturn]] static void deadlock(block *b)
{
    int at[EXITED + 1] = {0};
    for (int i = 0; i < b->n; i++) at[b->threads[i].state]++;
    for (int i = 0; i < b->n; i++)
        if (b->threads[i].state != EXITED) {
            b->cur = &b->threads[i];
            break;
        }
    die("deadlock: of %d threads %d wait at __syncthreads, %d for lanes of their warp, %d at a "
        "named "
        "barrier, %d for an mbarrier, %d have returned (divergent barrier or mask, or a missing "
        "arrival)",
        b->n, at[AT_BLOCK], at[AT_WARP], at[AT_BARRIER], at[AT_MBAR], at[EXITED]);
}

static inline void run_thread(block *b, thread *t)
{
    if (!t->fib) t->fib = fibre_take(b->fibres);
    b->cur = t;
    fibre_switch(b->fibres, t->fib);
}

/* Nobody can go on: the block rests until its predecessor is done, or never will. */
static void nobody_ready(block *b)
{
    if (!b->at_gdc) deadlock(b);
    b->cur = nullptr;
    fibre_switch(b->fibres, &b->fibres->base);
}

void wait_here()
{
    block *b = blk;
    thread *me = b->cur, *t = pick(b);
    if (!t) {
        nobody_ready(b);
    } else if (t != me) {
        run_thread(b, t);
    }
}

void preempt()
{
    unseen u;
    block *b = blk;
    if (next_random(b->rng) & 1) return;
    set_ready(b, b->cur);
    wait_here();
}

static void thread_returned(block *b);

/* The thread that is on has returned: who goes on, and on which fibre. */
static fibre *next_fibre(block *b)
{
    unseen u;
    fibres *set = b->fibres;
    thread_returned(b);
    thread *t = pick(b);
    if (!t && b->live && !b->at_gdc) deadlock(b);
    b->cur = t;
    if (t && !t->fib && !EMU_TSAN) return t->fib = set->running; /* here, on the same stack */
    (EMU_TSAN ? set->spent : set->idle).push_back(set->running);
    if (t && !t->fib) t->fib = fibre_take(set);
    return t ? t->fib : &set->base;
}

static block *my_block(void)
{
    unseen u;
    return blk;
}

void fibre_main()
{
    fibre_entered(my_block()->fibres);
    for (;;) {
        block *b = my_block();
        after(b);
        fibres *set = b->fibres;
        b->entry(b->arg);
        before(&b->live);
        fibre *next = next_fibre(b);
        if (EMU_TSAN || next != set->running) fibre_switch(set, next);
    }
}

/* ---- warps -------------------------------------------------------------------------------- */

static void close_meeting(block *b, int w, int k)
{
    warp &wp = b->warps[w];
    meeting m = wp.meetings[k];
    wp.meetings[k] = wp.meetings[--wp.n_meetings];
    if (m.op) m.op(wp, m.arrived);
    unsigned others = m.arrived;
    if (b->cur->warp == w) others &= ~(1u << b->cur->lane);
    if (others) wake_lanes(b, w, others);
}

void meet(unsigned mask, warp_op op)
{
    unseen u;
    block *b = blk;
    thread *t = b->cur;
    warp &w = b->warps[t->warp];
    unsigned me = 1u << t->lane;
    if (!(mask & me)) die("lane %d is not in its own mask %08x", t->lane, mask);
    int k = 0;
    for (; k < w.n_meetings && w.meetings[k].mask != mask; k++) {
        const meeting &o = w.meetings[k];
        if ((o.mask & me) && (o.arrived & mask))
            die("lanes of one warp wait for each other with different masks, %08x and %08x", mask,
                o.mask);
    }
    if (k == w.n_meetings) w.meetings[w.n_meetings++] = {mask, 0, op};
    meeting *m = &w.meetings[k];
    if (m->op != op) die("lanes of one warp meet in different operations");
    m->arrived |= me;
    if (!op) before(&w); /* only __syncwarp orders memory */
    if (((m->arrived | w.exited) & mask) == mask) {
        close_meeting(b, t->warp, k);
    } else {
        t->state = AT_WARP;
        wait_here();
    }
    if (!op) after(&w);
    maybe_preempt();
}

/* ---- blocks ------------------------------------------------------------------------------- */

void sync_block()
{
    unseen u;
    block *b = blk;
    /* Two places by turns: one may be late in leaving a round while another enters the next. */
    const char *order = (const char *)&b->round + (b->round & 1);
    if (b->live != b->n) die("__syncthreads after a thread of the block has returned");
    before(order);
    if (++b->at_block == b->n) {
        b->at_block = 0;
        b->round++;
        for (int w = 0; w < b->n_warps; w++) {
            unsigned lanes = b->warps[w].lanes;
            if (w == b->cur->warp) lanes &= ~(1u << b->cur->lane);
            if (lanes) wake_lanes(b, w, lanes);
        }
    } else {
        b->cur->state = AT_BLOCK;
        wait_here();
    }
    after(order);
    maybe_preempt();
}

void sync_named(int id, int n, bool wait)
{
    unseen u;
    block *b = blk;
    if (id < 0 || id >= NAMED_BARRIERS || n <= 0 || n % WARP || n > b->n)
        die("named barrier %d of %d threads: want an id of 0..15 and a multiple of 32 no larger "
            "than the block",
            id, n);
    barrier &bar = b->named[id];
    if (bar.want && bar.want != n)
        die("named barrier %d: %d threads here, %d elsewhere", id, n, bar.want);
    bar.want = n;
    before(&bar);
    if (++bar.arrived == n) {
        bar.arrived = bar.want = 0;
        for (thread *t : bar.waiting) wake(t);
        bar.waiting.clear();
    } else if (wait) {
        b->cur->state = AT_BARRIER;
        b->cur->barrier_id = id;
        bar.waiting.push_back(b->cur);
        wait_here();
    }
    if (wait) after(&bar);
    maybe_preempt();
}

static void mbar_step(block *b, mbar *bar)
{
    if (bar->pending || bar->tx) return;
    bar->phase ^= 1;
    bar->pending = bar->want;
    size_t keep = 0;
    for (thread *t : b->at_mbar) {
        if (t->bar == bar) {
            wake(t);
        } else {
            b->at_mbar[keep++] = t;
        }
    }
    b->at_mbar.resize(keep);
}

static void mbar_check(const mbar *bar)
{
    if (bar->magic != MBAR_MAGIC) die("mbarrier %p was never initialised", (const void *)bar);
}

void mbar_arrive(mbar *bar, int n, int tx)
{
    unseen u;
    before(bar);
    mbar_check(bar);
    bar->tx += tx;
    if (n > bar->pending) die("mbarrier: more arrivals than the %d it was made for", bar->want);
    bar->pending = (int16_t)(bar->pending - n);
    mbar_step(blk, bar);
    maybe_preempt();
}

void mbar_wait(mbar *bar, int parity)
{
    unseen u;
    block *b = blk;
    mbar_check(bar);
    if (bar->phase == (unsigned)parity && !b->bulks.empty()) land_bulks(b, bar);
    while (bar->phase == (unsigned)parity) {
        b->cur->state = AT_MBAR;
        b->cur->bar = bar;
        b->at_mbar.push_back(b->cur);
        wait_here();
    }
    after(bar);
    maybe_preempt();
}

/* Where byte `at` of a tile of 128-byte rows lies: the 16-byte pieces of row r change places by
 * r mod 8.  Addresses count from the tile, which is 1024-byte aligned. */
static size_t swizzled(size_t at)
{
    return at ^ (at >> 3 & 0x70);
}

static void land_bulk(block *b, const bulk &k)
{
    size_t n = k.data.size();
    for (size_t i = 0; i < n; i += 16)
        memcpy(k.dst + (k.swizzle ? swizzled(i) : i), &k.data[i], 16);
    k.bar->tx -= (int)n;
    mbar_step(b, k.bar);
}

/* Bulk copies arrive when somebody waits for them, when nothing else can go on, or at random. */
static void land_bulks(block *b, const mbar *bar)
{
    for (size_t i = 0; i < b->bulks.size();) {
        if (bar && b->bulks[i].bar != bar) {
            i++;
            continue;
        }
        bulk k = std::move(b->bulks[i]);
        b->bulks.erase(b->bulks.begin() + (long)i);
        land_bulk(b, k);
    }
}

static void thread_returned(block *b)
{
    thread *t = b->cur;
    if (t->async) {
        if (!t->copies.empty()) die("returns with cp.async in flight");
        if (!t->wgmmas.empty()) die("returns with wgmma in flight");
    }
    if (b->at_block) die("returns while %d threads wait at __syncthreads", b->at_block);
    t->state = EXITED;
    b->live--;
    warp &w = b->warps[t->warp];
    w.exited |= 1u << t->lane;
    for (int k = w.n_meetings - 1; k >= 0; k--) {
        meeting *m = &w.meetings[k];
        if (((m->arrived | w.exited) & m->mask) == m->mask) close_meeting(b, t->warp, k);
    }
}

static void set_shape(block *b, const launch_spec &s)
{
    b->grid = s.grid;
    b->dim = s.block;
    b->n = (int)(s.block.x * s.block.y * s.block.z);
    b->n_warps = (b->n + WARP - 1) / WARP;
    for (int i = 0; i < b->n; i++) {
        thread &t = b->threads[i];
        unsigned u = (unsigned)i;
        t.tid = {u % s.block.x, u / s.block.x % s.block.y, u / (s.block.x * s.block.y)};
        t.lane = (unsigned char)(i % WARP);
        t.warp = (unsigned char)(i / WARP);
    }
    for (int w = 0; w < b->n_warps; w++) {
        int lanes = b->n - w * WARP;
        b->warps[w].lanes = lanes >= WARP ? ~0u : (1u << lanes) - 1;
    }
}

static void start_threads(block *b)
{
    b->live = b->n;
    b->at_block = 0;
    b->round = 0;
    b->gdc_waited = false;
    b->cur_warp = 0;
    b->held_warps = 0;
    b->ready_warps = b->n_warps == WARP ? ~0u : (1u << b->n_warps) - 1;
    for (int w = 0; w < b->n_warps; w++) {
        warp &wp = b->warps[w];
        wp.ready = wp.lanes;
        wp.exited = ~wp.lanes;
        wp.n_meetings = 0;
    }
    for (int i = 0; i < b->n; i++) {
        thread &t = b->threads[i];
        t.state = READY;
        t.fib = nullptr;
        t.async = false;
        t.copy_group = t.mma_group = 0;
    }
}

static void check_ended(block *b)
{
    if (!b->bulks.empty()) die("block ends with a bulk copy in flight");
    for (int i = 0; i < NAMED_BARRIERS; i++) {
        if (b->named[i].arrived)
            die("block ends with %d of %d arrivals at named barrier %d", b->named[i].arrived,
                b->named[i].want, i);
    }
    if (b->spec.pdl && !b->gdc_waited)
        die("launched to overlap with its predecessor, but no thread of the block calls "
            "cu_gdc_wait");
    shared_check();
}

/* Runs threads until the block is done (true) or rests at cu_gdc_wait. */
static bool run_on(block *b)
{
    fibres *set = b->fibres;
    /* To the sanitizer whoever makes a thread comes before it: so none makes another. */
    if (EMU_TSAN) fibre_reserve(set, (size_t)b->n);
    before(b);
    {
        unseen u;
        run_thread(b, pick(b));
        if (b->at_gdc) return false;
    }
    after(&b->live);
    set->idle.insert(set->idle.end(), set->spent.begin(), set->spent.end());
    set->spent.clear();
    check_ended(b);
    return true;
}

bool block_run(block *b, uint3 bid, uint64_t rng, bool early)
{
    b->bid = bid;
    b->rng = rng;
    b->cur = nullptr;
    b->early = early;
    b->at_gdc = 0;
    shared_poison();
    start_threads(b);
    return run_on(b);
}

void block_resume(block *b)
{
    b->early = false;
    b->at_gdc = 0;
    for (int i = 0; i < b->n; i++)
        if (b->threads[i].state == AT_GDC) wake(&b->threads[i]);
    run_on(b);
}

void gdc_wait()
{
    unseen u;
    block *b = blk;
    b->gdc_waited = true;
    if (b->early) {
        b->cur->state = AT_GDC;
        b->at_gdc++;
        wait_here();
        after(b);
    }
    maybe_preempt();
}

void block_begin_grid(block *b, const launch_spec &s, void (*entry)(void *), void *arg)
{
    bool same = b->dim.x == s.block.x && b->dim.y == s.block.y && b->dim.z == s.block.z && b->n;
    b->spec = s;
    b->entry = entry;
    b->arg = arg;
    b->grid = s.grid;
    if (!same) set_shape(b, s);
#if EMU_TSAN
    b->fibres->base.tsan = __tsan_get_current_fiber();
#endif
}

} // namespace emu
