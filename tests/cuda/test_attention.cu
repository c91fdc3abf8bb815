/* test_attention.cu - the attention ops of the CUDA back end: against the same in double and
 * against ref's ops within stated bounds; by memcmp that a row's bits depend on its own sequence
 * alone, that the cut of the work changes none, and that nothing else is written. */
#include "tests/cuda/attention_rig.h"

static backend *be;

/* Relative root mean square error of the outputs.  The bf16 output alone rounds to 1.0e-3..1.3e-3;
 * weights rounded to the KV type add as much in bf16 and little in f16. */
static double out_bound(kv_type t)
{
    return t == KV_F16 ? 2e-3 : 3e-3;
}
/* K and V are rounded once: 2^-12.8 (f16), 2^-9.8 (bf16) in the mean of squares. */
static double kv_bound(kv_type t)
{
    return t == KV_F16 ? 2.5e-4 : 2e-3;
}

/* heads, kv_heads, head_dim, rotated, norm, type: groups of 1, 2, 4, 7, 8, 16, 20 */
static const shape shapes[] = {
    {4, 2, 64, 64, true, KV_F16},   {14, 2, 64, 64, false, KV_BF16},
    {8, 1, 128, 128, true, KV_F16}, {2, 2, 128, 64, false, KV_BF16},
    {16, 1, 32, 32, true, KV_BF16}, {7, 1, 32, 16, false, KV_F16},
    {20, 1, 16, 16, true, KV_F16},  {3, 3, 96, 96, false, KV_F16},
    {4, 1, 80, 40, true, KV_BF16},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void open_cuda(void)
{
    be = open_device();
    cuda_of(be)->invariant = false; /* opened so only because that needs no cuBLASLt */
    batch_limits l = {};
    l.max_tok = 5000;
    l.max_seqs = l.max_out = MAX_SEQ;
    l.max_blocks = 320;
    l.heads = 20;
    l.kv_heads = 4;
    l.head_dim = 128;
    err e = {};
    ck_assert_msg(k_batch_reserve(be, &l, &e) == 0, "%s", e.msg);
}

static void close_cuda(void)
{
    backend_close(be);
}

static void check_rows(const world *w, const measure *o, const measure *kv)
{
    double e = measure_rel(o), ekv = measure_rel(kv);
    ck_assert_msg(e < out_bound(w->s.type), "output: %.2e", e);
    ck_assert_msg(ekv < kv_bound(w->s.type), "K and V: %.2e", ekv);
}

/* The last position of every sequence, each a generated one. */
static int last_rows(world *w, span *sp)
{
    for (int s = 0; s < w->n_seq; s++) {
        sp[s] = (span){s, w->len[s] - 1, w->len[s]};
        w->n_prompt[s] = w->len[s] / 2;
    }
    return w->n_seq;
}

/* ---- values
 * ---------------------------------------------------------------------------------------- */

START_TEST(decode_values)
{
    static const int lens[] = {1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 512, 513};
    shape s = shapes[_i];
    world w = world_new(be, s, lens, 13, 11 + (uint64_t)_i);
    world_poison(&w);
    world_store(&w, 1);
    uint8_t *before = world_pool(&w);
    span sp[MAX_SEQ];
    step_run(&w, sp, last_rows(&w, sp), RUN_FUSED);
    uint8_t *pool = world_pool(&w);
    measure o = {}, kv = {};
    for (int i = 0; i < w.n_seq; i++) {
        row_error(&w, (uint16_t *)pool, i, w.len[i] - 1, &o);
        kv_error(&w, (uint16_t *)pool, i, w.len[i] - 1, &kv);
        for (int h = 0; h < 2 * s.kv_heads; h++) { /* only these may differ from before */
            size_t at = kv_at(&w, i, w.len[i] - 1, h / s.kv_heads, h % s.kv_heads);
            memcpy(before + at * 2, pool + at * 2, (size_t)s.dim * 2);
        }
    }
    check_rows(&w, &o, &kv);
    ck_assert_msg(!memcmp(before, pool, w.kv_bytes), "stray writes in the pool");
    free(before);
    free(pool);
    world_free(&w);
}
END_TEST

START_TEST(prefill_values)
{
    static const int lens[] = {150, 1, 17, 64};
    shape s = shapes[_i];
    world w = world_new(be, s, lens, 4, 23 + (uint64_t)_i);
    world_poison(&w);
    span sp[MAX_SEQ] = {{0, 0, 70}, {1, 0, 1}, {2, 0, 17}, {3, 0, 64}}, rest = {0, 70, 150};
    step_run(&w, sp, 4, RUN_FUSED);
    step_run(&w, &rest, 1, RUN_FUSED);
    uint8_t *pool = world_pool(&w);
    measure o = {}, kv = {};
    for (int i = 0; i < w.n_seq; i++)
        for (int p = 0; p < w.len[i]; p += p % 64 == 63 ? 1 : 3) {
            row_error(&w, (uint16_t *)pool, i, p, &o);
            kv_error(&w, (uint16_t *)pool, i, p, &kv);
        }
    check_rows(&w, &o, &kv);
    free(pool);
    world_free(&w);
}
END_TEST

/* ref's ops over the same rows, in f32 with KV of the same type: q is not rounded there. */
START_TEST(against_ref)
{
    static const int lens[] = {90, 33};
    shape s = shapes[_i];
    world w = world_new(be, s, lens, 2, 31 + (uint64_t)_i);
    world_poison(&w);
    for (int q = 0; q < w.n_seq; q++) w.n_prompt[q] = w.len[q] - 10;
    span sp[MAX_SEQ] = {{0, 0, 90}, {1, 0, 33}}; /* prompt and generated rows in one step */
    step_run(&w, sp, 2, RUN_FUSED);
    uint16_t *fused = (uint16_t *)malloc((size_t)(90 + 33) * (size_t)w.out * 2);
    memcpy(fused, w.o, (size_t)(90 + 33) * (size_t)w.out * 2);
    step_run(&w, sp, 2, RUN_APART);
    measure a = {}, b = {};
    for (int q = 0; q < 2; q++) {
        float *want = ref_rows(&w, q);
        for (int i = 0; i < w.len[q] * w.out; i++) {
            size_t at = (size_t)w.first[q] * (size_t)w.out + (size_t)i;
            measure_add(&a, (double)bf16_to_f32(fused[at]), (double)want[i]);
            measure_add(&b, (double)bf16_to_f32(w.o[at]), (double)want[i]);
        }
        free(want);
    }
    /* rounding q to f16 is no more than the bound has room for; to bf16, and apart, it is seen */
    double bound = s.type == KV_F16 ? out_bound(s.type) : 6e-3;
    ck_assert_msg(measure_rel(&a) < bound, "rope_attn: %.2e", measure_rel(&a));
    ck_assert_msg(measure_rel(&b) < 6e-3, "apart: %.2e", measure_rel(&b));
    free(fused);
    world_free(&w);
}
END_TEST

/* Keys with a bias of 900 in some channels, as Qwen2.5 has them: scores in the hundreds. */
START_TEST(large_keys)
{
    static const int lens[] = {300, 40};
    shape s = {4, 2, 64, 64, false, _i ? KV_BF16 : KV_F16};
    world w = world_new(be, s, lens, 2, 77);
    for (int r = 0; r < 340; r++)
        for (int h = 0; h < s.kv_heads; h++)
            for (int c = 0; c < 64; c += 31) {
                uint16_t *k = w.qkv + (size_t)r * (size_t)w.cols + (s.heads + h) * s.dim + c;
                *k = f32_to_bf16(bf16_to_f32(*k) + (c ? -900.0f : 900.0f));
            }
    world_poison(&w);
    w.n_prompt[0] = w.n_prompt[1] = 39;
    span sp[MAX_SEQ] = {{0, 0, 39}, {1, 0, 39}}, next[MAX_SEQ] = {{0, 39, 300}, {1, 39, 40}};
    step_run(&w, sp, 2, RUN_FUSED);
    step_run(&w, next, 2, RUN_FUSED);
    uint8_t *pool = world_pool(&w);
    measure o = {}, kv = {};
    for (int p = 0; p < 300; p += 13) {
        row_error(&w, (uint16_t *)pool, 0, p, &o);
        kv_error(&w, (uint16_t *)pool, 0, p, &kv);
    }
    check_rows(&w, &o, &kv);
    free(pool);
    world_free(&w);
}
END_TEST

/* ---- bits
 * ------------------------------------------------------------------------------------------ */

/* What a test compares with: outputs and pool of a first run. */
typedef struct {
    uint16_t *o;
    uint8_t *pool;
    size_t o_bytes;
} kept;

static size_t o_bytes(const world *w)
{
    return (size_t)(w->first[w->n_seq - 1] + w->len[w->n_seq - 1]) * (size_t)w->out * 2;
}
static kept keep(const world *w)
{
    kept k = {(uint16_t *)malloc(o_bytes(w)), world_pool(w), o_bytes(w)};
    memcpy(k.o, w->o, k.o_bytes);
    return k;
}
static void kept_free(kept *k)
{
    free(k->o);
    free(k->pool);
}
/* Same bits as then; forgets the outputs. */
static void same(world *w, const kept *k, bool pool, const char *what)
{
    ck_assert_msg(!memcmp(w->o, k->o, k->o_bytes), "%s: other bits", what);
    memset(w->o, 0xff, k->o_bytes);
    if (!pool) return;
    uint8_t *now = world_pool(w);
    ck_assert_msg(!memcmp(now, k->pool, w->kv_bytes), "%s: other bits in the pages", what);
    free(now);
}

static const shape bit_shapes[] = {
    {4, 2, 64, 64, true, KV_F16}, {8, 1, 128, 128, true, KV_BF16}, {20, 1, 16, 16, false, KV_F16}};

START_TEST(decode_bits)
{
    static const int lens[] = {1, 17, 257, 900, 64, 513};
    world w = world_new(be, bit_shapes[_i], lens, 6, 41);
    cuda_state *st = cuda_of(be);
    span sp[MAX_SEQ];
    int n = last_rows(&w, sp), sms = st->info.sms;
    world_poison(&w);
    world_store(&w, 1);
    memset(w.o, 0xff, o_bytes(&w));
    step_run(&w, sp, n, RUN_FUSED);
    kept k = keep(&w);
    memset(w.o, 0xff, k.o_bytes);

    rig_how.eager = true;
    for (int i = n - 1; i >= 0; i--) step_run(&w, sp + i, 1, RUN_FUSED);
    same(&w, &k, true, "each alone");
    rig_how.eager = false;
    for (st->info.sms = 1; st->info.sms < 4; st->info.sms += 2) {
        step_run(&w, sp, n, RUN_FUSED);
        same(&w, &k, true, "fewer blocks");
    }
    st->info.sms = sms;
    for (int parts = 0; parts < 20; parts += 3) {
        rig_how.parts = parts;
        step_run(&w, sp, n, RUN_FUSED);
        same(&w, &k, true, "other cut");
    }
    rig_how.parts = -1;
    for (uint64_t order = 1; order < 3; order++) {
        other_order(order);
        step_run(&w, sp, n, RUN_FUSED);
        same(&w, &k, true, "other order");
    }
    other_order(asked_order());
    /* beside prompt rows, in two steps: k and v are then stored by another kernel */
    span mixed[] = {sp[3], {5, 0, 100}, sp[2]}, rest[] = {sp[0], sp[1], sp[4], sp[5]};
    step_run(&w, mixed, 3, RUN_FUSED);
    step_run(&w, rest, 4, RUN_FUSED);
    memset(w.o + (size_t)w.first[5] * (size_t)w.out, 0xff, (size_t)100 * (size_t)w.out * 2);
    same(&w, &k, true, "mixed steps");
    world_deal(&w, 5);
    world_poison(&w);
    world_store(&w, 1);
    step_run(&w, sp, n, RUN_FUSED);
    same(&w, &k, false, "other pages");
    kept_free(&k);
    world_free(&w);
}
END_TEST

/* More than one span: chunks, spans and whole rows give the same bits, and the right values. */
START_TEST(span_bits)
{
    static const int lens[] = {4100, 40, 4500};
    shape s = {4, 1, 32, 32, true, KV_F16};
    world w = world_new(be, s, lens, 3, 43);
    span sp[MAX_SEQ];
    int n = last_rows(&w, sp);
    world_poison(&w);
    span one = {2, 0, 4499};
    step_run(&w, &one, 1, RUN_STORE);
    w.len[2] = w.len[1];
    world_store(&w, 1);
    w.len[2] = 4500;
    step_run(&w, sp, n, RUN_FUSED);
    kept k = keep(&w);
    measure o = {}, kv = {};
    row_error(&w, (uint16_t *)k.pool, 0, 4099, &o);
    row_error(&w, (uint16_t *)k.pool, 2, 4499, &o);
    kv_error(&w, (uint16_t *)k.pool, 2, 4499, &kv);
    check_rows(&w, &o, &kv);
    static const int parts[] = {0, 2, 3, 4, 22, 23, 40};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memset(w.o, 0xff, k.o_bytes);
        rig_how.parts = parts[i];
        step_run(&w, sp, n, RUN_FUSED);
        same(&w, &k, true, "cut of a long row");
    }
    rig_how.parts = 100;
    for (rig_how.at_once = 1; rig_how.at_once < 100; rig_how.at_once *= 3) {
        memset(w.o, 0xff, k.o_bytes);
        step_run(&w, sp, n, RUN_FUSED);
        same(&w, &k, true, "cut for another device");
    }
    rig_how.at_once = 1 << 20;
    rig_how.parts = -1;
    kept_free(&k);
    world_free(&w);
}
END_TEST

/* Generated positions recomputed several in one step have the bits they had one by one. */
START_TEST(recomputed_bits)
{
    static const int lens[] = {70, 270};
    world w = world_new(be, bit_shapes[_i], lens, 2, 47);
    w.n_prompt[0] = 61;
    w.n_prompt[1] = 245;
    world_poison(&w);
    span sp[] = {{0, 0, 61}, {1, 0, 245}};
    step_run(&w, sp, 2, RUN_FUSED);
    for (int p = 245; p < 270; p++) {
        span next[] = {{1, p, p + 1}, {0, p - 184, p - 183}};
        step_run(&w, next, p - 184 < 70 ? 2 : 1, RUN_FUSED);
    }
    kept k = keep(&w);
    memset(w.o, 0xff, k.o_bytes);
    world_poison(&w);
    span again[] = {{0, 0, 66},    {1, 0, 128},   {0, 66, 70},
                    {1, 128, 255}, {1, 255, 256}, {1, 256, 270}};
    step_run(&w, again, 2, RUN_FUSED);
    step_run(&w, again + 2, 2, RUN_FUSED);
    step_run(&w, again + 4, 1, RUN_FUSED);
    step_run(&w, again + 5, 1, RUN_FUSED);
    same(&w, &k, true, "recomputed");
    kept_free(&k);
    world_free(&w);
}
END_TEST

START_TEST(prefill_bits)
{
    static const int lens[] = {200, 40, 129}, chunks[] = {1000, 64, 100, 37, 129};
    world w = world_new(be, bit_shapes[_i], lens, 3, 53);
    cuda_state *st = cuda_of(be);
    int sms = st->info.sms;
    kept k = {};
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
        world_poison(&w);
        if (c == 2) st->info.sms = 1;
        if (c == 3) other_order(3);
        for (int at = 0; at < 200; at += chunks[c]) {
            span sp[MAX_SEQ];
            int n = 0;
            for (int s = 2; s >= 0; s--)
                if (at < lens[s])
                    sp[n++] = (span){s, at, at + chunks[c] < lens[s] ? at + chunks[c] : lens[s]};
            step_run(&w, sp, n, RUN_FUSED);
        }
        st->info.sms = sms;
        other_order(asked_order());
        if (c) same(&w, &k, true, "other chunks");
        else k = keep(&w);
    }
    kept_free(&k);
    world_free(&w);
}
END_TEST

/* --batch-invariant: whether a position was prompt or generated changes nothing. */
START_TEST(invariant_bits)
{
    static const int lens[] = {270, 20};
    world w = world_new(be, bit_shapes[_i], lens, 2, 59);
    cuda_of(be)->invariant = true;
    world_poison(&w);
    span all[] = {{0, 0, 270}, {1, 0, 20}}, some[] = {{0, 0, 250}, {1, 0, 19}};
    step_run(&w, all, 2, RUN_FUSED);
    kept k = keep(&w);
    memset(w.o, 0xff, k.o_bytes);
    world_poison(&w);
    w.n_prompt[0] = 100;
    w.n_prompt[1] = 3;
    step_run(&w, some, 2, RUN_FUSED);
    for (int p = 250; p < 270; p++) {
        span next[] = {{0, p, p + 1}, {1, 19, 20}};
        step_run(&w, next, p == 260 ? 2 : 1, RUN_FUSED);
    }
    cuda_of(be)->invariant = false;
    same(&w, &k, true, "prompt or generated");
    kept_free(&k);
    world_free(&w);
}
END_TEST

/* A NaN in one sequence stays in it. */
START_TEST(nan_stays)
{
    static const int lens[] = {140, 90, 300};
    world w = world_new(be, bit_shapes[_i], lens, 3, 61);
    span prompt[] = {{0, 0, 130}, {1, 0, 80}, {2, 0, 290}},
         next[] = {{0, 130, 131}, {1, 80, 81}, {2, 290, 291}};
    kept k = {};
    for (int bad = 0; bad < 2; bad++) {
        for (int s = 0; s < 3; s++) w.n_prompt[s] = prompt[s].to;
        for (int i = 0; i < w.cols && bad; i++)
            w.qkv[(size_t)(w.first[1] + 7) * (size_t)w.cols + (size_t)i] = 0x7fc0;
        memset(w.o, 0xff, o_bytes(&w));
        world_poison(&w);
        step_run(&w, prompt, 3, RUN_FUSED);
        step_run(&w, next, 3, RUN_FUSED);
        if (!bad) k = keep(&w);
    }
    size_t from = (size_t)w.first[1] * (size_t)w.out, to = (size_t)w.first[2] * (size_t)w.out;
    ck_assert(!memcmp(w.o, k.o, from * 2));
    ck_assert(!memcmp(w.o + to, k.o + to, k.o_bytes - to * 2));
    ck_assert(isnan(bf16_to_f32(w.o[from + (size_t)(80 * w.out)]))); /* and is not swallowed */
    kept_free(&k);
    world_free(&w);
}
END_TEST

/* A recorded pass serves other lengths of its bucket. */
START_TEST(replay)
{
    static const int lens[] = {30, 700, 300};
    world w = world_new(be, bit_shapes[_i], lens, 3, 67);
    gpu_stream *stream = cuda_of(be)->stream;
    world_poison(&w);
    world_store(&w, 1);
    span sp[] = {{0, 5, 6}, {1, 9, 10}, {2, 7, 8}}, last[MAX_SEQ];
    int n = last_rows(&w, last);
    w.n_prompt[0] = w.n_prompt[1] = w.n_prompt[2] = 1;
    step_run(&w, last, n, RUN_FUSED);
    kept k = keep(&w);
    memset(w.o, 0xff, k.o_bytes);
    host_step h = step_of(&w, sp, n);
    batch d = step_up(&w, &h);
    ck_assert_int_gt(d.bucket, 0);
    step_mem recorded = step_mem_of(&w, &d, sp, n);
    free(h.ints);
    gpu_capture_begin(stream);
    step_ops(&w, &recorded, &d, RUN_FUSED);
    gpu_graph *g = gpu_capture_end(stream);
    ck_assert_ptr_nonnull(g);
    h = step_of(&w, last, n);
    batch again = step_up(&w, &h);
    ck_assert_int_eq(again.bucket, d.bucket);
    step_mem m = step_mem_of(&w, &again, last, n); /* at the recorded addresses */
    ck_assert(m.qkv.ptr == recorded.qkv.ptr && m.o.ptr == recorded.o.ptr);
    gpu_graph_launch(g, stream);
    err e = {};
    ck_assert_msg(k_sync(be, &e) == 0, "%s", e.msg);
    step_take(&w, &m, last, n);
    same(&w, &k, true, "replayed");
    gpu_graph_free(g);
    free(h.ints);
    kept_free(&k);
    world_free(&w);
}
END_TEST

/* ---- plan and refusals
 * ------------------------------------------------------------------------------- */

/* Every chunk of every row once, slots used once and within the limit, tiles cover the prompt rows.
 */
static void check_plan(const batch *b, const batch_limits *l, bool invariant, int parts,
                       int at_once)
{
    size_t words = cuda_plan_words(l);
    int32_t *plan = (int32_t *)malloc((words + 1) * 4);
    plan[words] = 12345;
    attn_plan_fill(b, invariant, parts, at_once, plan);
    ck_assert(cuda_plan_used(plan) <= words && plan[words] == 12345);
    const attn_plan *p = (const attn_plan *)plan;
    const attn_item *it = (const attn_item *)(p + 1);
    const attn_tile *tile = (const attn_tile *)(plan + p->tile_at);
    int *seen = (int *)calloc((size_t)b->n_tok, sizeof *seen);
    char *slot = (char *)calloc((size_t)parts + 1, 1);
    for (int i = 0; i < p->n_items; i++, it++) {
        seen[it->row] += it->n;
        ck_assert(it->chunk >= 0 && it->n > 0 && (it->chunk + it->n - 1) * ATTN_CHUNK < it->len);
        ck_assert(it->n == 1 || it->chunk % ATTN_SPAN == 0);
        if (it->slot >= 0) {
            ck_assert(it->slot < parts && !slot[it->slot]);
            slot[it->slot] = 1;
        }
    }
    for (int i = 0; i < p->n_tiles; i++) {
        ck_assert(tile[i].q0 % ATTN_TILE == 0 && tile[i].lo < tile[i].hi &&
                  tile[i].hi <= ATTN_TILE);
        ck_assert(!i || tile[i - 1].q0 >= tile[i].q0);
        for (int r = tile[i].lo; r < tile[i].hi; r++) seen[tile[i].row0 + tile[i].q0 + r] -= 1;
    }
    for (int s = 0; s < b->n_seq; s++)
        for (int r = b->seq_start[s]; r < b->seq_start[s + 1]; r++) {
            int len = b->ctx_len[s] - (b->seq_start[s + 1] - 1 - r);
            bool prompt = !invariant && (!b->n_prompt || len <= b->n_prompt[s]);
            int want = prompt ? -1 : (len + ATTN_CHUNK - 1) / ATTN_CHUNK;
            ck_assert_int_eq(seen[r], b->ctx_len[s] ? want : 0);
        }
    free(seen);
    free(slot);
    free(plan);
}

START_TEST(plan_is_whole)
{
    enum { SEQS = 64, ROWS = 4096 };
    static int32_t start[SEQS + 1], ctx[SEQS], prompt[SEQS], slots[ROWS];
    batch_limits l = {};
    l.max_tok = ROWS;
    l.max_seqs = SEQS;
    l.max_blocks = (128 * 1024 + 4096) / KV_PAGE;
    ck_assert_int_eq(attn_parts(&l), ATTN_PARTS);
    uint64_t seed = 71;
    for (int round = 0; round < 20; round++) {
        batch b = {};
        int rows = 0;
        for (int s = 0; s < SEQS; s++) {
            int n = round < 8 ? 1 : 1 + rnd_below(&seed, round % 2 ? 8 : 64);
            int past = round == 0 ? 128 * 1024 - 1 : rnd_below(&seed, 1 << (4 + round % 14));
            start[s] = rows;
            rows += n;
            ctx[s] = round && s % 9 == 8 ? 0 : past + n;
            prompt[s] = round < 8 ? 0 : past + rnd_below(&seed, n + 1);
        }
        start[SEQS] = rows;
        b.n_tok = rows;
        b.n_seq = SEQS;
        b.seq_start = start;
        b.ctx_len = ctx;
        b.n_prompt = round % 5 == 4 ? NULL : prompt;
        b.slot = slots;
        static const int parts[] = {0, 1, 63, 64, 500, ATTN_PARTS};
        for (int i = 0; i < 12; i++) check_plan(&b, &l, i >= 6, parts[i % 6], 1 << 2 * i);
    }
}
END_TEST

START_TEST(refusals)
{
    ck_assert_uint_eq(cuda_kv_block_bytes(KV_F16, 8, 128), 2 * 8 * 16 * 128 * 2);
    ck_assert_uint_eq(cuda_kv_block_bytes(KV_F32, 8, 128), 0);
    ck_assert_uint_eq(cuda_kv_block_bytes(KV_Q8_0, 8, 128), 0);
    ck_assert_uint_eq(cuda_kv_block_bytes(KV_F16, 8, 256), 0);
    ck_assert_uint_eq(cuda_kv_block_bytes(KV_BF16, 8, 36), 0);
    static const int lens[] = {20};
    backend *other = open_device(); /* a fault is final */
    batch_limits l = {};
    l.max_tok = l.max_seqs = l.max_out = l.max_blocks = 32;
    err e = {};
    ck_assert_int_eq(k_batch_reserve(other, &l, &e), 0);
    world w = world_new(other, shapes[0], lens, 1, 3);
    w.kv.n_blocks = 1;
    span sp = {0, 0, 20};
    host_step h = step_of(&w, &sp, 1);
    batch d = step_up(&w, &h);
    step_mem m = step_mem_of(&w, &d, &sp, 1);
    step_ops(&w, &m, &d, RUN_FUSED);
    ck_assert_int_eq(k_sync(other, &e), ERR_DEVICE);
    ck_assert_msg(strstr(e.msg, "rope_attn: slot"), "%s", e.msg);
    free(h.ints);
    world_free(&w);
    backend_close(other);
}
END_TEST

/* ---- suite
 * -------------------------------------------------------------------------------------------- */

int main(void)
{
    /* In another order of threads a part of the shapes will do. */
    int values = asked_order() ? 2 : N_SHAPES, bits = asked_order() ? 1 : 2, wide = bits * 3 / 2;
    Suite *s = suite_create("cuda attention");
    TCase *t = tcase_create("attention");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, open_cuda, close_cuda);
    tcase_add_loop_test(t, decode_values, 0, values);
    tcase_add_loop_test(t, prefill_values, 0, values);
    tcase_add_loop_test(t, against_ref, 0, values);
    tcase_add_loop_test(t, large_keys, 0, 2);
    tcase_add_loop_test(t, decode_bits, 0, wide);
    tcase_add_test(t, span_bits);
    tcase_add_loop_test(t, recomputed_bits, 0, wide);
    tcase_add_loop_test(t, prefill_bits, 0, bits);
    tcase_add_loop_test(t, invariant_bits, 0, bits);
    tcase_add_loop_test(t, nan_stays, 0, bits);
    tcase_add_loop_test(t, replay, 0, bits);
    tcase_add_test(t, plan_is_whole);
    tcase_add_test(t, refusals);
    suite_add_tcase(s, t);
    return run_suite(s);
}
