/* tool_inspect_plan.c - `quern inspect --tp N`: what every rank would hold, and on which cards.
 * Owns the plan it makes.  Refuses: sizes that do not divide the heads (naming those that do),
 * tensors the architecture needs and the checkpoint lacks.  Thread: the caller's. */
#include "engine/blocks.h"
#include "engine/shard.h"
#include "engine/tool_inspect.h"
#include "engine/tool_quantize.h"
#include "engine/weights.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Positions of a block on a GPU (kernels.h, backend.kv_block). */
enum { GPU_KV_BLOCK = 16, MAX_NAME = 128 };

const int tp_card_gb[TP_CARDS] = {24, 40, 80, 141};

uint64_t tp_card_bytes(int card_gb)
{
    return (uint64_t)(card_gb - TP_RESERVE_GIB) << 30;
}

/* ---- where the types come from --------------------------------------------------------------- */

typedef struct {
    const checkpoint *c;
    const model_config *conf;
    const arch *a;
    const quantize_target *assume; /* NULL: the tensors' own types */
    bool has_weights, tied;
    shard_units units;
    char types[64];
} walk;

/* The type of a matrix that will be on the device. */
static int type_at(const walk *w, const rule *r, int at)
{
    if (w->assume)
        return quantize_type_of(w->assume, r, at, w->conf->layers, dim_value(w->conf, r->shape[1]),
                                w->tied);
    char name[MAX_NAME];
    arch_tensor_name(r, checkpoint_is_gguf(w->c), at, "weight", name, sizeof name);
    return checkpoint_find(w->c, name)->type; /* weights_check found it */
}

static bool has_bias(const walk *w, const rule *r, int at)
{
    if (w->has_weights) return weights_has_bias(r, w->c, at);
    return r->bias == BIAS_NEEDED || (r->bias == BIAS_CONFIG && w->conf->qkv_bias);
}

/* Columns are cut at whole blocks of the coarsest type a layer's o and down matrices have. */
static shard_units units_of(const walk *w)
{
    shard_units u = {1, 1};
    for (int at = 0; at < (int)w->conf->layers; at++)
        for (const rule *r = w->a->rules; r->kind != RULE_END; r++) {
            if (!r->per_layer || r->cut != SPLIT_IN) continue;
            int *unit = r->shape[1] == DIM_FF ? &u.ff : &u.q;
            int elems = dtype_of(type_at(w, r, at)).elems;
            if (elems > *unit) *unit = elems;
        }
    return u;
}

static int open_walk(walk *w, const checkpoint *c, const tp_ask *ask, err *e)
{
    *w = (walk){.c = c, .conf = checkpoint_config(c), .has_weights = checkpoint_n_tensors(c) > 0};
    if (!(w->a = weights_arch(c, e))) return e ? e->code : ERR_INVALID;
    const char *word = ask->assume_type ? ask->assume_type : w->has_weights ? NULL : "BF16";
    if (word && !(w->assume = quantize_target_find(word, "--assume-type", e)))
        return e ? e->code : ERR_INVALID;
    weights_summary sum = {.tied = w->conf->tied};
    int rc = w->has_weights ? weights_check(w->a, c, NULL, &sum, e) : 0;
    if (rc) return rc;
    w->tied = sum.tied;
    if (word) snprintf(w->types, sizeof w->types, "%s, assumed", quantize_target_name(w->assume));
    else snprintf(w->types, sizeof w->types, "%s", sum.quantization);
    w->units = units_of(w);
    return 0;
}

/* ---- one rank's share ------------------------------------------------------------------------ */

/* Adds the part of one tensor that a rank holds. */
static void add_tensor(const walk *w, const rule *r, int at, const shard *share, tp_rank *out)
{
    shard_span rows, cols;
    shard_cut(share, w->conf, r, &rows, &cols);
    bool vector = r->kind == RULE_VEC;
    bool bias = !vector && shard_has_bias(share, r) && has_bias(w, r, at);
    out->n_params += rows.n * (vector ? 1 : cols.n) + (bias ? rows.n : 0);
    if (bias || vector) out->weight_bytes += (uint64_t)rows.n * sizeof(float);
    size_t row = 0;
    bool whole = vector || dtype_row_bytes(type_at(w, r, at), cols.n, &row);
    assert(whole); /* shard_check took a world that cuts at whole blocks */
    out->weight_bytes += (uint64_t)rows.n * row;
}

static void add_weights(const walk *w, const shard *share, tp_rank *out)
{
    for (int at = -1; at < (int)w->conf->layers; at++)
        for (const rule *r = w->a->rules; r->kind != RULE_END; r++) {
            bool head = !r->per_layer && r->slot == offsetof(globals, head);
            if (r->per_layer == (at >= 0) && !(head && w->tied)) add_tensor(w, r, at, share, out);
        }
}

/* Bytes of one position over all layers. */
static uint64_t kv_per_token(const model_config *c, kv_type t, int kv_heads)
{
    static const int of_type[] = {
        [KV_F32] = DT_F32, [KV_F16] = DT_F16, [KV_BF16] = DT_BF16, [KV_Q8_0] = DT_Q8_0};
    dtype_traits d = dtype_of(of_type[t]);
    uint64_t blocks = ((uint64_t)c->head_dim + (uint64_t)d.elems - 1) / (uint64_t)d.elems;
    return 2 * (uint64_t)c->layers * (uint64_t)kv_heads * blocks * (uint64_t)d.bytes;
}

/* On a GPU, with no op fused: the most a pass takes. */
static size_t scratch(const model_config *c, const tp_ask *ask, const tp_rank *r)
{
    static const backend_ops unfused = {.name = "plan"};
    const backend be = {.op = &unfused, .act = ACT_BF16};
    const block_dims d = {.hidden = (int)c->hidden,
                          .heads = r->heads,
                          .kv_heads = r->kv_heads,
                          .head_dim = (int)c->head_dim,
                          .ff = r->ff,
                          .vocab = (int)c->vocab};
    int out = ask->seqs > 16 ? ask->seqs : 16;
    int states = c->pool.generates ? 0 : ask->batched;
    if (out > ask->batched) out = ask->batched;
    return blocks_scratch_bytes(&be, &d, ask->batched, states ? 0 : out, states, ask->seqs);
}

static void plan_rank(const walk *w, const tp_ask *ask, int rank, tp_rank *out)
{
    const model_config *c = w->conf;
    const shard s = shard_make(c, w->units, ask->tp, rank);
    *out = (tp_rank){.heads = (int)s.heads,
                     .kv_heads = (int)s.kv_heads,
                     .ff = (int)s.ff.n,
                     .vocab = (int)s.vocab.n};
    uint64_t blocks = ((uint64_t)ask->ctx + GPU_KV_BLOCK - 1) / GPU_KV_BLOCK;
    out->kv_per_token = kv_per_token(c, ask->kv, out->kv_heads);
    out->kv_bytes = blocks * GPU_KV_BLOCK * (uint64_t)ask->seqs * out->kv_per_token;
    out->scratch_bytes = scratch(c, ask, out);
    add_weights(w, &s, out);
}

static uint64_t together(const tp_rank *r)
{
    return r->weight_bytes + r->kv_bytes + r->scratch_bytes;
}

/* ---- the plan -------------------------------------------------------------------------------- */

static int plan_of(const walk *w, const tp_ask *ask, tp_plan *p, err *e)
{
    *p = (tp_plan){.ask = *ask};
    int rc = shard_check(w->conf, w->units, ask->tp, e);
    if (rc) return rc;
    memcpy(p->types, w->types, sizeof p->types);
    p->rank = calloc((size_t)ask->tp, sizeof *p->rank);
    if (!p->rank) return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < ask->tp; i++) plan_rank(w, ask, i, &p->rank[i]);
    return 0;
}

/* The smallest number of ranks whose every share fits each card. */
static void find_smallest(const walk *w, tp_plan *p)
{
    for (int n = 1, left = TP_CARDS; n <= SHARD_MAX_RANKS && left; n++) {
        tp_plan other;
        tp_ask ask = p->ask;
        ask.tp = n;
        if (plan_of(w, &ask, &other, NULL)) continue;
        uint64_t most = tp_plan_most(&other);
        tp_plan_clear(&other);
        for (int i = 0; i < TP_CARDS; i++) {
            if (p->smallest[i] || most > tp_card_bytes(tp_card_gb[i])) continue;
            p->smallest[i] = n;
            left--;
        }
    }
}

int tp_plan_make(tp_plan *p, const checkpoint *c, const tp_ask *ask, err *e)
{
    walk w;
    *p = (tp_plan){.ask = *ask};
    int rc = open_walk(&w, c, ask, e);
    if (!rc) rc = plan_of(&w, ask, p, e);
    if (!rc) find_smallest(&w, p);
    return rc;
}

void tp_plan_clear(tp_plan *p)
{
    free(p->rank);
    p->rank = NULL;
}

uint64_t tp_plan_most(const tp_plan *p)
{
    uint64_t most = 0;
    for (int i = 0; i < p->ask.tp; i++)
        if (together(&p->rank[i]) > most) most = together(&p->rank[i]);
    return most;
}

/* ---- words ----------------------------------------------------------------------------------- */

static bool equal(const tp_rank *a, const tp_rank *b)
{
    return a->heads == b->heads && a->kv_heads == b->kv_heads && a->ff == b->ff &&
           a->vocab == b->vocab && together(a) == together(b);
}

static void put_cell(buf *out, uint64_t bytes)
{
    buf cell = {0};
    inspect_put_bytes(&cell, bytes);
    buf_printf(out, "  %10s", buf_str(&cell));
    buf_clear(&cell);
}

/* Ranks with equal shares stand in one line. */
static void put_ranks(const tp_plan *p, buf *out)
{
    buf_printf(out, "  %-10s %-12s  %10s  %10s  %10s  %10s\n", "rank", "heads q/kv", "weights",
               "KV cache", "scratch", "together");
    for (int i = 0, last; i < p->ask.tp; i = last + 1) {
        const tp_rank *r = &p->rank[i];
        char name[24], heads[24];
        for (last = i; last + 1 < p->ask.tp && equal(r, &p->rank[last + 1]);) last++;
        if (last > i) snprintf(name, sizeof name, "%d-%d", i, last);
        else snprintf(name, sizeof name, "%d", i);
        snprintf(heads, sizeof heads, "%d/%d", r->heads, r->kv_heads);
        buf_printf(out, "  %-10s %-12s", name, heads);
        put_cell(out, r->weight_bytes);
        put_cell(out, r->kv_bytes);
        put_cell(out, r->scratch_bytes);
        put_cell(out, together(r));
        buf_putc(out, '\n');
    }
}

static void put_card(const tp_plan *p, int i, buf *out)
{
    int gb = tp_card_gb[i], n = p->smallest[i];
    uint64_t need = tp_plan_most(p), room = tp_card_bytes(gb);
    buf_printf(out, "  %3d GB     ", gb);
    buf_puts(out, need <= room ? "yes, leaving " : "no, short of ");
    inspect_put_bytes(out, need <= room ? room - need : need - room);
    if (n > p->ask.tp) buf_printf(out, "; %d of them would do (--tp %d)", n, n);
    buf_putc(out, '\n');
}

void tp_plan_text(const tp_plan *p, buf *out)
{
    const tp_ask *a = &p->ask;
    inspect_label(out, "on GPUs");
    buf_printf(out,
               "%d rank%s of one GPU each, %d sequence%s of %" PRId64
               " tokens, %d tokens a step, weights %s, KV cache %s\n",
               a->tp, a->tp == 1 ? "" : "s", a->seqs, a->seqs == 1 ? "" : "s", a->ctx, a->batched,
               p->types, model_kv_name(a->kv));
    put_ranks(p, out);
    buf_printf(out, "  card       fits (%d GiB kept for driver, libraries and graphs)\n",
               TP_RESERVE_GIB);
    for (int i = 0; i < TP_CARDS; i++) put_card(p, i, out);
}

void tp_plan_json(const tp_plan *p, buf *out)
{
    const tp_ask *a = &p->ask;
    buf_printf(out,
               "{\"tp\":%d,\"ctx\":%" PRId64 ",\"seqs\":%d,\"batched\":%d,\"kv_dtype\":\"%s\","
               "\"weights\":",
               a->tp, a->ctx, a->seqs, a->batched, model_kv_name(a->kv));
    buf_put_json(out, p->types, strlen(p->types));
    buf_puts(out, ",\"ranks\":[");
    for (int i = 0; i < a->tp; i++) {
        const tp_rank *r = &p->rank[i];
        buf_printf(out,
                   "%s{\"rank\":%d,\"heads\":%d,\"kv_heads\":%d,\"mlp\":%d,\"vocabulary\":%d,"
                   "\"parameters\":%" PRId64 ",\"weight_bytes\":%" PRIu64
                   ",\"kv_bytes_per_token\":%" PRIu64 ",\"kv_bytes\":%" PRIu64
                   ",\"scratch_bytes\":%" PRIu64 "}",
                   i ? "," : "", i, r->heads, r->kv_heads, r->ff, r->vocab, r->n_params,
                   r->weight_bytes, r->kv_per_token, r->kv_bytes, r->scratch_bytes);
    }
    buf_puts(out, "],\"cards\":[");
    for (int i = 0; i < TP_CARDS; i++) {
        uint64_t need = tp_plan_most(p), room = tp_card_bytes(tp_card_gb[i]);
        buf_printf(out, "%s{\"gb\":%d,\"usable_bytes\":%" PRIu64 ",\"fits\":%s,\"smallest_tp\":%d}",
                   i ? "," : "", tp_card_gb[i], room, need <= room ? "true" : "false",
                   p->smallest[i]);
    }
    buf_puts(out, "]}");
}
