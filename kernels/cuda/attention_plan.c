/* attention_plan.c - lists a step's attention work on the host: see attention.h for the cut.
 * Owns nothing.  Refuses nothing: a batch that contradicts itself is a broken invariant.
 * Thread: any. */
#include "kernels/cuda/attention.h"

#include <assert.h>
#include <string.h>

/* Rows of at most this many chunks are not cut: waiting for the last arriver and reading partial
 * results back costs about as much as reading one more chunk (estimate: three L2 round trips). */
enum { UNCUT = 2 };

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

int attn_parts(const batch_limits *l)
{
    int chunks = ceil_div(l->max_blocks, ATTN_CHUNK / KV_PAGE);
    int64_t all = (int64_t)l->max_tok * (chunks + ceil_div(chunks, ATTN_SPAN));
    return all < ATTN_PARTS ? (int)all : ATTN_PARTS;
}

static size_t item_words(const batch_limits *l)
{
    return ((size_t)l->max_tok + (size_t)attn_parts(l)) * (sizeof(attn_item) / 4);
}

size_t cuda_plan_words(const batch_limits *l)
{
    size_t tiles = (size_t)(l->max_tok / ATTN_TILE) + 2 * (size_t)l->max_seqs;
    return sizeof(attn_plan) / 4 + item_words(l) + tiles * (sizeof(attn_tile) / 4);
}

size_t cuda_plan_used(const int32_t *plan)
{
    const attn_plan *p = (const attn_plan *)(const void *)plan;
    return (size_t)p->tile_at + (size_t)p->n_tiles * (sizeof(attn_tile) / 4);
}

/* Rows of a sequence: their number, the position of the first, and how many of them are prompt. */
typedef struct {
    int row, n, pos, prompt;
} seq_rows;

static seq_rows rows_of(const batch *b, int s, bool invariant)
{
    seq_rows r = {.row = b->seq_start[s], .n = b->seq_start[s + 1] - b->seq_start[s]};
    if (b->ctx_len[s] == 0) r.n = 0; /* padding */
    r.pos = b->ctx_len[s] - r.n;
    assert(r.n >= 0 && r.pos >= 0);
    if (invariant) return r;
    int left = b->n_prompt ? b->n_prompt[s] - r.pos : r.n;
    r.prompt = left < 0 ? 0 : left > r.n ? r.n : left;
    return r;
}

/* Positions that row i of r sees. */
static int row_len(const batch *b, int s, const seq_rows *r, int i)
{
    return b->full ? b->ctx_len[s] : r->pos + i + 1;
}

/* Hands out slots: first every row gets spans if all rows can; then, in order, chunks; none is cut
 * finer than it pays. */
typedef struct {
    bool all_spans;
    attn_cut finest;
    int left, slot;
} share;

static int span_slots(int chunks)
{
    int spans = ceil_div(chunks, ATTN_SPAN);
    return spans > 1 ? spans : 0;
}

static attn_cut cut_row(share *s, int chunks)
{
    int spans = span_slots(chunks);
    if (s->all_spans) {
        if (s->finest == CUT_CHUNKS && chunks > UNCUT && chunks <= s->left) {
            s->left -= chunks;
            return CUT_CHUNKS;
        }
        return spans && s->finest != CUT_WHOLE ? CUT_SPANS : CUT_WHOLE;
    }
    if (!spans || spans > s->left || s->finest == CUT_WHOLE) return CUT_WHOLE;
    s->left -= spans;
    return CUT_SPANS;
}

/* Chunks that rows have, and pieces they make, cut one way. */
typedef struct {
    int64_t chunks, pieces;
    int longest; /* chunks of a piece */
} cut_sum;

static void count_row(cut_sum sum[3], int chunks)
{
    const int most[] = {[CUT_WHOLE] = chunks, [CUT_SPANS] = ATTN_SPAN, [CUT_CHUNKS] = 1};
    for (int c = CUT_WHOLE; c <= CUT_CHUNKS; c++) {
        int n = c == CUT_CHUNKS && chunks <= UNCUT ? chunks : most[c];
        sum[c].chunks += chunks;
        sum[c].pieces += ceil_div(chunks, n);
        int longest = n < chunks ? n : chunks;
        if (longest > sum[c].longest) sum[c].longest = longest;
    }
}

/* The cut that is over first if `at_once` pieces are under way at a time, in quarters of a chunk:
 * an item costs about another six for its query, its fold and its ticket, and at the end half of
 * an item is waited for (fitted to an H100). */
static attn_cut finest_of(const cut_sum sum[3], int at_once)
{
    enum { ITEM = 6 };
    attn_cut best = CUT_WHOLE;
    int64_t least = INT64_MAX;
    for (int c = CUT_CHUNKS; c >= CUT_WHOLE; c--) {
        int64_t one = 4 * (int64_t)sum[c].longest + ITEM;
        int64_t all = (4 * sum[c].chunks + ITEM * sum[c].pieces) / at_once + one / 2;
        int64_t cost = all > one ? all : one;
        if (cost >= least) continue;
        least = cost;
        best = (attn_cut)c;
    }
    return best;
}

static share share_of(const batch *b, bool invariant, int parts, int at_once)
{
    int64_t spans = 0;
    cut_sum sum[3] = {{0}};
    for (int s = 0; s < b->n_seq; s++) {
        seq_rows r = rows_of(b, s, invariant);
        for (int i = r.prompt; i < r.n; i++) {
            int chunks = ceil_div(row_len(b, s, &r, i), ATTN_CHUNK);
            spans += span_slots(chunks);
            count_row(sum, chunks);
        }
    }
    bool all = spans <= parts;
    return (share){all, finest_of(sum, at_once), all ? parts - (int)spans : parts, 0};
}

/* Items of one row; slots are counted even where the items are for another pass. */
static void add_row(attn_plan *p, share *s, attn_item it, bool large)
{
    int chunks = ceil_div(it.len, ATTN_CHUNK), step[] = {chunks, ATTN_SPAN, 1};
    it.cut = cut_row(s, chunks);
    it.base = s->slot;
    int slot = it.cut == CUT_WHOLE ? -1 : s->slot;
    if (it.cut == CUT_CHUNKS) s->slot += chunks + span_slots(chunks);
    if (it.cut == CUT_SPANS) s->slot += span_slots(chunks);
    bool many = it.cut != CUT_CHUNKS && chunks > 1;
    if (many != large) return;
    attn_item *to = (attn_item *)(void *)(p + 1) + p->n_items;
    for (int c = 0; c < chunks; c += step[it.cut]) {
        it.chunk = c;
        it.n = chunks - c < step[it.cut] ? chunks - c : step[it.cut];
        it.slot = slot < 0 ? -1 : slot++;
        *to++ = it;
        p->n_items++;
    }
}

/* Tiles of the prompt rows, the ones with the most keys first. */
static void add_tiles(attn_plan *p, const batch *b, int seq, seq_rows r)
{
    attn_tile *to = (attn_tile *)(void *)((int32_t *)p + p->tile_at);
    int end = r.pos + r.prompt;
    for (int q0 = r.pos / ATTN_TILE * ATTN_TILE; q0 < end; q0 += ATTN_TILE) {
        int lo = r.pos > q0 ? r.pos - q0 : 0, hi = end - q0 < ATTN_TILE ? end - q0 : ATTN_TILE;
        int keys = b->full ? b->ctx_len[seq] : q0 + hi;
        attn_tile t = {seq, q0, r.row - r.pos, (int16_t)lo, (int16_t)hi, keys};
        int at = p->n_tiles++;
        for (; at > 0 && to[at - 1].q0 < q0; at--) to[at] = to[at - 1];
        to[at] = t;
    }
}

void attn_plan_fill(const batch *b, bool invariant, int parts, int at_once, int32_t *plan)
{
    attn_plan *p = (attn_plan *)(void *)plan;
    memset(p, 0, sizeof *p);
    p->fused = 1;
    for (int large = 1; large >= 0; large--) { /* long items first: the tail is then short */
        share sh = share_of(b, invariant, parts, at_once);
        for (int s = 0; s < b->n_seq; s++) {
            seq_rows r = rows_of(b, s, invariant);
            for (int i = r.prompt; i < r.n; i++)
                add_row(p, &sh,
                        (attn_item){.row = r.row + i, .seq = s, .len = row_len(b, s, &r, i)},
                        large != 0);
        }
    }
    p->tile_at = (int32_t)(sizeof *p / 4) + p->n_items * (int32_t)(sizeof(attn_item) / 4);
    for (int s = 0; s < b->n_seq; s++) {
        seq_rows r = rows_of(b, s, invariant);
        if (r.n > 1 || r.prompt) p->fused = 0;
        if (r.n && r.row + r.n > p->n_rows) p->n_rows = r.row + r.n;
        for (int i = 0; i < r.n; i++) {
            assert(b->slot[r.row + i] >= 0);
            if (b->slot[r.row + i] > p->max_slot) p->max_slot = b->slot[r.row + i];
        }
        if (r.prompt) add_tiles(p, b, s, r);
    }
}

void cuda_plan_fill(const cuda_state *st, const batch *host, int32_t *plan)
{
    const batch_limits *l = &st->limits;
    int at_once = 1;
    assert(host->n_tok <= l->max_tok && host->n_seq <= l->max_seqs);
    if (l->heads) {
        int units = l->kv_heads * ceil_div(l->heads / l->kv_heads, ATTN_ROWS);
        at_once = attn_decode_blocks(st, l->head_dim) / units;
    }
    attn_plan_fill(host, st->invariant, attn_parts(l), at_once > 0 ? at_once : 1, plan);
}

int attn_built_dim(int head_dim)
{
    if (head_dim < 8 || head_dim > ATTN_HEAD_DIM_MAX || head_dim % 8) return 0;
    return head_dim <= 32 ? 32 : head_dim <= 64 ? 64 : 128;
}

size_t cuda_kv_block_bytes(kv_type t, int kv_heads, int head_dim)
{
    if (t != KV_F16 && t != KV_BF16) return 0;
    if (!attn_built_dim(head_dim)) return 0;
    return 2 * (size_t)kv_heads * KV_PAGE * (size_t)head_dim * 2;
}

/* Bytes of st->work: partial results, then what the blocks of the decode kernel fold. */
int cuda_attn_need(backend *be, const batch_limits *l, int heads, int kv_heads, int head_dim,
                   err *e)
{
    size_t part = (size_t)heads * (size_t)(head_dim + 2) * sizeof(float);
    size_t fold = 2 * (size_t)ATTN_ROWS * (size_t)head_dim * sizeof(float);
    size_t n = (size_t)attn_parts(l);
    int tickets = attn_parts(l) * kv_heads * ceil_div(heads / kv_heads, ATTN_ROWS);
    return cuda_need_work(be, n * part + (size_t)attn_decode_blocks(cuda_of(be), head_dim) * fold,
                          tickets, e);
}
