/* tool_inspect.c - `quern inspect`: what is in a checkpoint, what it needs, whether it fits here,
 * and what each rank would hold (tool_inspect_plan.c).  Owns what it opens, for the length of the
 * call; reads headers, never weights, and is content with a config.json alone.  Refuses: what
 * opening refuses; an architecture we do not run (after describing the file).  Thread: the
 * caller's. */
#include "base/file.h"
#include "base/sysinfo.h"
#include "engine/engine_open.h"
#include "engine/model.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"
#include "engine/tool_inspect.h"
#include "engine/tools.h"
#include "engine/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TYPES = 12, MAX_TEMPLATE = 4 << 20, MIN_OUT = 16 };

void inspect_label(buf *out, const char *word)
{
    buf_printf(out, "%-14s ", word);
}

void inspect_put_bytes(buf *out, uint64_t n)
{
    if (n >= 1ull << 30) buf_printf(out, "%.2f GiB", (double)n / (1ull << 30));
    else if (n >= 1 << 20) buf_printf(out, "%.1f MiB", (double)n / (1 << 20));
    else buf_printf(out, "%.1f KiB", (double)n / (1 << 10));
}

static void put_count(buf *out, double n)
{
    if (n >= 1e9) buf_printf(out, "%.2f billion", n / 1e9);
    else if (n >= 1e6) buf_printf(out, "%.2f million", n / 1e6);
    else buf_printf(out, "%.0f", n);
}

/* ---- tensors --------------------------------------------------------------------------------- */

typedef enum {
    IN_EMBED,
    IN_ATTENTION,
    IN_MLP,
    IN_HEAD,
    IN_NORMS,
    IN_OTHER,
    N_CLASSES
} tensor_class;
static const char *const class_names[N_CLASSES] = {"embedding", "attention", "mlp",
                                                   "head",      "norms",     "other"};

typedef struct {
    int n, n_types;
    uint64_t bytes;
    struct {
        const char *name; /* borrowed */
        uint64_t bytes;
    } type[MAX_TYPES];
} class_sum;

/* By the names both Hugging Face and GGUF use; works for architectures we do not run, too. */
static tensor_class class_of(const char *name)
{
    static const struct {
        const char *part;
        tensor_class class;
    } parts[] = {{"norm", IN_NORMS},   {"embed_tokens", IN_EMBED}, {"token_embd", IN_EMBED},
                 {"lm_head", IN_HEAD}, {"attn", IN_ATTENTION},     {"mlp", IN_MLP},
                 {"ffn", IN_MLP}};
    if (!strncmp(name, "output.", 7)) return IN_HEAD;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i].part)) return parts[i].class;
    return IN_OTHER;
}

static void add_tensor(class_sum *s, const ckpt_tensor *t)
{
    s->n++;
    s->bytes += t->bytes;
    for (int i = 0; i < MAX_TYPES; i++) {
        if (i == s->n_types)
            s->type[s->n_types++].name = i < MAX_TYPES - 1 ? t->type_name : "others";
        if (i < MAX_TYPES - 1 && strcmp(s->type[i].name, t->type_name) != 0) continue;
        s->type[i].bytes += t->bytes;
        return;
    }
}

static void put_tensors(const checkpoint *c, buf *out)
{
    class_sum sum[N_CLASSES] = {0};
    double params = 0;
    for (size_t i = 0; i < checkpoint_n_tensors(c); i++) {
        const ckpt_tensor *t = checkpoint_tensor_at(c, i);
        params += (double)t->dim[0] * (double)t->dim[1] * (double)t->dim[2] * (double)t->dim[3];
        add_tensor(&sum[class_of(t->name)], t);
    }
    inspect_label(out, "parameters");
    put_count(out, params);
    buf_printf(out, " in %zu tensors\n", checkpoint_n_tensors(c));
    for (int k = 0; k < N_CLASSES; k++) {
        if (!sum[k].n) continue;
        buf_printf(out, "  %-12s %5d ", class_names[k], sum[k].n);
        for (int i = 0; i < sum[k].n_types; i++) {
            buf_printf(out, "%s%s ", i ? ", " : "", sum[k].type[i].name);
            inspect_put_bytes(out, sum[k].type[i].bytes);
        }
        buf_putc(out, '\n');
    }
}

/* ---- configuration --------------------------------------------------------------------------- */

static void put_config(const checkpoint *c, const char *path, buf *out)
{
    const model_config *m = checkpoint_config(c);
    char name[256];
    checkpoint_name(path, name, sizeof name);
    inspect_label(out, "model");
    buf_printf(out, "%s, %s, ", name, checkpoint_is_gguf(c) ? "GGUF" : "Hugging Face directory");
    if (checkpoint_n_tensors(c)) inspect_put_bytes(out, checkpoint_bytes(c));
    else buf_puts(out, "no weights");
    buf_putc(out, '\n');
    inspect_label(out, "architecture");
    buf_printf(out,
               "%s (%s): %" PRId64 " layers, hidden %" PRId64 ", heads %" PRId64 "/%" PRId64
               " of %" PRId64 ", mlp %" PRId64 ", vocabulary %" PRId64,
               m->arch[0] ? m->arch : "unnamed", m->model_type, m->layers, m->hidden, m->heads,
               m->kv_heads, m->head_dim, m->ff, m->vocab);
    if (m->n_experts) buf_printf(out, ", %" PRId64 " experts", m->n_experts);
    if (m->tied) buf_puts(out, ", output tied to the embedding");
    if (m->quant_method[0]) buf_printf(out, ", quantised by %s", m->quant_method);
    buf_putc(out, '\n');
}

static void put_rope(const model_config *m, buf *out)
{
    static const char *const kinds[] = {"plain", "linear", "dynamic NTK", "YaRN"};
    const rope_config *r = &m->rope;
    inspect_label(out, "context");
    buf_printf(out, "%" PRId64 " tokens; rope %s, theta %g", m->ctx, kinds[r->kind], r->theta);
    if (r->kind != ROPE_PLAIN)
        buf_printf(out, ", factor %g over %" PRId64, r->factor, r->original_ctx);
    buf_putc(out, '\n');
}

static void put_sampling(const generation_config *g, buf *out)
{
    const struct {
        bool has;
        const char *name;
        double v;
    } row[] = {{g->has_temperature, "temperature", g->temperature},
               {g->has_top_p, "top_p", g->top_p},
               {g->has_top_k, "top_k", (double)g->top_k},
               {g->has_min_p, "min_p", g->min_p},
               {g->has_repetition, "repetition_penalty", g->repetition},
               {g->has_presence, "presence_penalty", g->presence},
               {g->has_frequency, "frequency_penalty", g->frequency}};
    const char *comma = "";
    inspect_label(out, "sampling");
    if (g->has_do_sample && !g->do_sample) buf_puts(out, "greedy");
    else
        for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
            if (!row[i].has) continue;
            buf_printf(out, "%s%s %g", comma, row[i].name, row[i].v);
            comma = ", ";
        }
    buf_puts(out, *comma || (g->has_do_sample && !g->do_sample)
                      ? "\n"
                      : "the checkpoint names no defaults\n");
}

/* ---- text ------------------------------------------------------------------------------------ */

/* All that ends a turn (API G9), in the engine's order. */
static void put_ends(const generation_config *g, const tokenizer *tok, buf *out)
{
    enum { MORE = 3 };
    int32_t id[sizeof g->eos / sizeof *g->eos + MORE];
    int n = g->n_eos;
    memcpy(id, g->eos, sizeof g->eos);
    if (tok) {
        const int32_t more[MORE] = {tokenizer_eos(tok), tokenizer_id(tok, "<|im_end|>"),
                                    tokenizer_id(tok, "<|endoftext|>")};
        for (int i = 0; i < MORE; i++) {
            bool known = more[i] < 0;
            for (int k = 0; k < n; k++) known |= id[k] == more[i];
            if (!known) id[n++] = more[i];
        }
    }
    inspect_label(out, "end tokens");
    for (int i = 0; i < n; i++) {
        size_t len = 0;
        const char *text = tok ? tokenizer_piece(tok, id[i], &len) : NULL;
        buf_printf(out, "%s%d", i ? ", " : "", id[i]);
        if (text) buf_putc(out, ' ');
        if (text) buf_put_json(out, text, len);
    }
    buf_puts(out, n ? "\n" : "none\n");
}

static void put_traits(const char *from, const char *text, size_t n, buf *out)
{
    err e = {0};
    buf_puts(out, from);
    template *t = template_compile(text, n, &e);
    if (!t) {
        buf_printf(out, ": does not compile: %s\n", e.msg);
        return;
    }
    template_traits r = template_inspect(t);
    buf_printf(out, ": %s",
               r.tools ? r.xml_calls ? "tools (XML calls)" : "tools (Hermes calls)" : "no tools");
    if (r.think) buf_printf(out, ", thinking%s", r.think_switch ? " (can be switched off)" : "");
    if (r.effort) buf_puts(out, ", reads reasoning_effort");
    if (r.parts) buf_puts(out, ", takes content parts");
    buf_putc(out, '\n');
    template_free(t);
}

/* Template in force: the operator's, the directory's file, or the tokenizer's. */
static void put_template(const engine_options *o, const checkpoint_text *files,
                         const tokenizer *tok, buf *out)
{
    err e = {0};
    size_t n = 0;
    const char *text = NULL;
    inspect_label(out, "template");
    if (o->chat_template_text) {
        put_traits("--chat-template", o->chat_template_text, o->chat_template_len, out);
    } else if (files->chat_template) {
        buf file = {0};
        if (file_read(files->chat_template, MAX_TEMPLATE, &file, &e))
            buf_printf(out, "%s\n", e.msg);
        else put_traits("chat_template.jinja", buf_str(&file), file.len, out);
        buf_clear(&file);
    } else if (tok && (text = tokenizer_chat_template(tok, &n))) {
        put_traits("in the tokenizer's configuration", text, n, out);
    } else {
        buf_puts(out, "none: plain ChatML is used\n");
    }
}

static void put_text(const engine_options *o, const checkpoint *c, buf *out)
{
    checkpoint_text f = checkpoint_text_files(c);
    tokenizer_source src;
    err e = {0};
    tokenizer *tok = NULL;
    inspect_label(out, "tokenizer");
    if (!engine_text_source(c, &src))
        buf_puts(out, "none: the model can be measured, not served\n");
    else if (!(tok = tokenizer_open(&src, &e))) buf_printf(out, "cannot be used: %s\n", e.msg);
    else buf_printf(out, "%d tokens\n", (int)tokenizer_n_vocab(tok));
    put_ends(&checkpoint_config(c)->gen, tok, out);
    put_template(o, &f, tok, out);
    tokenizer_free(tok);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static uint64_t kv_bytes(const inspect_needs *n, int64_t ctx)
{
    uint64_t blocks = ((uint64_t)ctx + (uint64_t)n->block - 1) / (uint64_t)n->block;
    return blocks * (uint64_t)n->seqs * n->p.kv_block_bytes;
}

static uint64_t together(const inspect_needs *n)
{
    return n->kv_bytes + (uint64_t)n->p.weight_bytes + n->p.scratch_bytes;
}

/* What would make it fit. */
static void put_advice(const inspect_needs *n, uint64_t available, buf *out)
{
    uint64_t fixed = (uint64_t)n->p.weight_bytes + n->p.scratch_bytes;
    if (fixed >= available) {
        buf_puts(
            out,
            "; the weights alone are too much: raise the memory limit, or use a smaller or more "
            "quantised checkpoint (Q8_0 would take ");
        inspect_put_bytes(out, (uint64_t)((double)n->p.n_params * 34 / 32));
        buf_puts(out, ", Q4_0 ");
        inspect_put_bytes(out, (uint64_t)((double)n->p.n_params * 18 / 32));
        buf_puts(out, ")\n");
        return;
    }
    uint64_t blocks = (available - fixed) / n->p.kv_block_bytes;
    uint64_t longest = blocks / (uint64_t)n->seqs * (uint64_t)n->block;
    uint64_t most = (available - fixed) / (kv_bytes(n, n->ctx) / (uint64_t)n->seqs);
    if (longest)
        buf_printf(out, "; %d sequence%s can have %" PRIu64 " tokens (--max-model-len)", n->seqs,
                   n->seqs == 1 ? "" : "s", longest);
    if (most)
        buf_printf(out, "; %" PRIu64 " sequence%s of %" PRId64 " would fit (--max-num-seqs)", most,
                   most == 1 ? "" : "s", n->ctx);
    buf_puts(out, n->kv == KV_Q8_0 ? "\n" : "; --kv-cache-dtype q8_0 takes less\n");
}

static void put_memory(const inspect_needs *n, const backend *be, buf *out)
{
    uint64_t available = n->available, total = together(n);
    inspect_label(out, "memory");
    buf_printf(out, "%d sequence%s of %" PRId64 " tokens: weights ", n->seqs,
               n->seqs == 1 ? "" : "s", n->ctx);
    inspect_put_bytes(out, (uint64_t)n->p.weight_bytes);
    buf_printf(out, " (%s), KV cache (%s) ", n->p.quantization, model_kv_name(n->kv));
    inspect_put_bytes(out, n->kv_bytes);
    buf_puts(out, ", working memory ");
    inspect_put_bytes(out, n->p.scratch_bytes);
    buf_puts(out, ", together ");
    inspect_put_bytes(out, total);
    buf_puts(out, "\n  per token    ");
    inspect_put_bytes(out, n->p.kv_block_bytes / (uint64_t)n->block);
    buf_puts(out, " of KV cache\n");
    inspect_label(out, "machine");
    inspect_put_bytes(out, available);
    buf_puts(out, " available of ");
    inspect_put_bytes(out, sys_mem_limit());
    buf_printf(out, ", %d processor%s, %s %s\n", sys_cpus(), sys_cpus() == 1 ? "" : "s",
               be->op->name, be->isa);
    inspect_label(out, "fits");
    buf_puts(out, total <= available ? "yes, leaving " : "no, short of ");
    inspect_put_bytes(out, total <= available ? available - total : total - available);
    if (total <= available) buf_putc(out, '\n');
    else put_advice(n, available, out);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_config_json(const checkpoint *c, const char *path, buf *out)
{
    const model_config *m = checkpoint_config(c);
    char name[256];
    checkpoint_name(path, name, sizeof name);
    buf_puts(out, "{\"model\":");
    buf_put_json(out, name, strlen(name));
    buf_printf(out, ",\"form\":\"%s\",\"file_bytes\":%" PRIu64 ",\"tensors\":%zu,\"architecture\":",
               checkpoint_is_gguf(c) ? "gguf" : "directory", checkpoint_bytes(c),
               checkpoint_n_tensors(c));
    buf_put_json(out, m->arch, strlen(m->arch));
    buf_puts(out, ",\"model_type\":");
    buf_put_json(out, m->model_type, strlen(m->model_type));
    buf_printf(out,
               ",\"layers\":%" PRId64 ",\"hidden\":%" PRId64 ",\"heads\":%" PRId64
               ",\"kv_heads\":%" PRId64 ",\"head_dim\":%" PRId64 ",\"mlp\":%" PRId64
               ",\"vocabulary\":%" PRId64 ",\"tied\":%s,\"context\":%" PRId64,
               m->layers, m->hidden, m->heads, m->kv_heads, m->head_dim, m->ff, m->vocab,
               m->tied ? "true" : "false", m->ctx);
}

static void put_needs_json(const inspect_needs *n, const backend *be, buf *out)
{
    buf_printf(out,
               ",\"here\":{\"backend\":\"%s\",\"isa\":\"%s\",\"parameters\":%" PRId64
               ",\"weights\":\"%s\",\"weight_bytes\":%" PRId64
               ",\"kv_dtype\":\"%s\",\"kv_bytes\":%" PRIu64 ",\"scratch_bytes\":%zu"
               ",\"available_bytes\":%" PRIu64 ",\"fits\":%s}",
               be->op->name, be->isa, n->p.n_params, n->p.quantization, n->p.weight_bytes,
               model_kv_name(n->kv), n->kv_bytes, n->p.scratch_bytes, n->available,
               together(n) <= n->available ? "true" : "false");
}

/* ---- this machine ---------------------------------------------------------------------------- */

/* What this machine would need, with the back end the options choose. */
static int find_needs(const engine_options *o, const checkpoint *c, const tp_ask *ask, backend *be,
                      inspect_needs *n, err *e)
{
    int batched = engine_step_tokens(o, checkpoint_config(c), ask->ctx, be->device[0]);
    int rows = ask->seqs > MIN_OUT ? ask->seqs : MIN_OUT;
    model_options mo = {.ctx = ask->ctx,
                        .max_tok = batched,
                        .max_out = rows < batched ? rows : batched,
                        .max_seqs = ask->seqs,
                        .kv = ask->kv};
    mo.no_logits = !checkpoint_config(c)->pool.generates;
    if (mo.no_logits) mo.max_state = batched;
    *n = (inspect_needs){.ctx = ask->ctx, .seqs = ask->seqs, .block = be->kv_block, .kv = ask->kv};
    int rc = model_plan_make(c, be, &mo, &n->p, e);
    n->kv_bytes = kv_bytes(n, n->ctx);
    n->available = k_mem_available(be);
    return rc;
}

static int put_needs(const engine_options *o, const checkpoint *c, const tp_ask *ask, bool as_json,
                     buf *out, err *e)
{
    backend *be = engine_backend(o, 0, e);
    if (!be) return e->code;
    inspect_needs n;
    int rc = find_needs(o, c, ask, be, &n, e);
    if (!rc && as_json) put_needs_json(&n, be, out);
    else if (!rc) put_memory(&n, be, out);
    backend_close(be);
    return rc;
}

/* ---- the whole report ------------------------------------------------------------------------ */

/* Zeros of the options are what the model and the defaults say. */
static int read_ask(const engine_options *o, const inspect_options *i, const model_config *m,
                    tp_ask *ask, err *e)
{
    *ask = (tp_ask){.ctx = i->ctx > 0             ? i->ctx
                           : o->max_model_len > 0 ? o->max_model_len
                                                  : m->ctx,
                    .seqs = i->seqs > 0           ? i->seqs
                            : o->max_num_seqs > 0 ? o->max_num_seqs
                                                  : 1,
                    .tp = i->tp > 0 ? i->tp : 1,
                    .assume_type = i->assume_type};
    ask->batched = engine_step_tokens(o, m, ask->ctx, true);
    int rc = model_kv_parse(o->kv_dtype, &ask->kv, e);
    if (rc || ask->ctx <= m->ctx) return rc;
    return err_set(e, ERR_INVALID,
                   "a context of %" PRId64 " tokens is more than the model's %" PRId64
                   "; stretch it with --rope-scaling",
                   ask->ctx, m->ctx);
}

static void describe(const engine_options *o, const checkpoint *c, bool as_json, buf *out)
{
    const model_config *m = checkpoint_config(c);
    if (as_json) {
        put_config_json(c, o->model_path, out);
        return;
    }
    put_config(c, o->model_path, out);
    if (checkpoint_n_tensors(c)) put_tensors(c, out);
    put_rope(m, out);
    put_sampling(&m->gen, out);
    put_text(o, c, out);
}

static int report(const engine_options *o, const inspect_options *i, const checkpoint *c, buf *out,
                  err *e)
{
    tp_ask ask;
    tp_plan p = {0};
    describe(o, c, i->json, out);
    if (!weights_arch(c, e)) return e->code;
    int rc = read_ask(o, i, checkpoint_config(c), &ask, e);
    if (!rc && checkpoint_n_tensors(c)) rc = put_needs(o, c, &ask, i->json, out, e);
    if (!rc) rc = tp_plan_make(&p, c, &ask, e);
    if (!rc && i->json) {
        buf_puts(out, ",\"plan\":");
        tp_plan_json(&p, out);
        buf_puts(out, "}\n");
    } else if (!rc) {
        tp_plan_text(&p, out);
    }
    tp_plan_clear(&p);
    return rc;
}

/* Whether dir/name is there. */
static bool holds(const char *dir, const char *name)
{
    buf path = {0};
    buf_printf(&path, "%s/%s", dir, name);
    bool yes = buf_ok(&path) && file_exists(buf_str(&path));
    buf_clear(&path);
    return yes;
}

/* A directory with a config.json and no weights at all: a model one may want to buy GPUs for. */
static checkpoint *open_any(const char *path, err *e)
{
    bool bare = holds(path, "config.json") && !holds(path, "model.safetensors") &&
                !holds(path, "model.safetensors.index.json");
    return checkpoint_open(path, &(checkpoint_options){.weights = !bare}, e);
}

int tool_inspect(const engine_options *o, const inspect_options *i, buf *out, err *e)
{
    err own = {0};
    if (!e) e = &own;
    checkpoint *c = open_any(o->model_path, e);
    if (!c) return e->code;
    int rc = 0;
    model_config *m = checkpoint_config_edit(c);
    if (o->rope_scaling) rc = model_config_rope_override(m, o->rope_scaling, e);
    if (!rc && o->generation_override)
        rc = model_config_generation_override(m, o->generation_override, e);
    if (!rc) rc = report(o, i, c, out, e);
    if (rc && i->json) buf_reset(out); /* half an object is of no use */
    if (!rc && !buf_ok(out)) rc = err_set(e, ERR_NOMEM, "out of memory");
    checkpoint_close(c);
    return rc;
}
