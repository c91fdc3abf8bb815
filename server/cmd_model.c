/* cmd_model.c - options to engine_options; see cmd_model.h.  Main thread. */
#include "server/cmd_model.h"

#include "base/file.h"
#include "base/log.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int exit_code(const err *e)
{
    switch (e->code) {
    case ERR_FORMAT:
    case ERR_UNSUPPORTED:
    case ERR_INVALID:
    case ERR_LIMIT:
    case ERR_NOTFOUND: return 2;
    default: return 1;
    }
}

int cmd_fail(const err *e)
{
    log_failure(e->msg[0] ? e->msg : err_words(e->code));
    return exit_code(e);
}

static int find_demo(char *out, size_t cap, err *e)
{
    static const char *const place[] = {"models/demo", "../models/demo", "../share/quern/demo"};
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        char *slash = strrchr(exe, '/');
        if (slash) slash[1] = 0;
        for (size_t i = 0; i < sizeof place / sizeof *place; i++)
            if ((size_t)snprintf(out, cap, "%s%s", exe, place[i]) < cap && file_is_dir(out))
                return 0;
    }
    return err_set(
        e, ERR_NOTFOUND,
        "no MODEL was given and the demo model is not beside the program or in share/quern/demo");
}

/* --chat-template: a file's name, or the template itself. */
static int read_template(model_setup *m, const char *text, err *e)
{
    if (!text) return 0;
    if (strchr(text, '{') || strchr(text, '\n')) {
        buf_puts(&m->template_text, text);
    } else {
        int rc = file_read(text, 1 << 20, &m->template_text, e);
        if (rc) return err_prefix(e, "--chat-template");
    }
    m->o.chat_template_text = buf_str(&m->template_text);
    m->o.chat_template_len = m->template_text.len;
    return buf_ok(&m->template_text) ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

static int read_kwargs(model_setup *m, const char *text, err *e)
{
    const json *root;
    if (!text) return 0;
    m->kwargs_doc = json_parse(text, strlen(text), NULL, &root, e);
    if (!m->kwargs_doc) return err_prefix(e, "--default-chat-template-kwargs");
    if (root->type != JSON_OBJECT)
        return err_set(e, ERR_INVALID,
                       "--default-chat-template-kwargs must be a JSON object, got %s",
                       json_type_name(root));
    m->o.template_kwargs = root;
    return 0;
}

int model_setup_init(model_setup *m, const options *o, err *e)
{
    *m = (model_setup){
        .o = {.device = o->device,
              .cpu_isa = o->cpu_isa,
              .threads = (int)o->threads,
              .tensor_parallel = (int)o->tensor_parallel_size,
              .collective_timeout = o->collective_timeout,
              .bf16_repack = o->bf16_repack,
              .batch_invariant = o->batch_invariant,
              .no_graphs = o->no_graphs,
              .dummy_weights = o->dummy_weights,
              .dummy_type = o->dummy_type,
              .max_model_len = o->max_model_len,
              .max_num_seqs = (int)o->max_num_seqs,
              .max_num_batched_tokens = (int)o->max_num_batched_tokens,
              .max_queue = (int)o->max_queue,
              .kv_memory = o->kv_cache_memory,
              .kv_dtype = o->kv_cache_dtype,
              .prefix_caching = !o->no_prefix_caching,
              .allow_priority = o->allow_priority,
              .rope_scaling = o->rope_scaling,
              .generation_override = o->override_generation_config,
              .generation_config = !o->generation_config || strcmp(o->generation_config, "none"),
              .trace_ops = o->trace_ops,
              .dump_plan = o->dump_plan,
              .tool_format = o->tool_format,
              .embeddings = o->embeddings,
              .pooling = o->pooling,
              .attention = o->attention}};
    int rc = 0;
    m->is_demo = !o->model;
    if (m->is_demo) rc = find_demo(m->path, sizeof m->path, e);
    else if ((size_t)snprintf(m->path, sizeof m->path, "%s", o->model) >= sizeof m->path)
        rc = err_set(e, ERR_INVALID, "the model's path is too long");
    m->o.model_path = m->path;
    if (!rc) rc = read_template(m, o->chat_template, e);
    if (!rc) rc = read_kwargs(m, o->default_chat_template_kwargs, e);
    return rc;
}

void model_setup_clear(model_setup *m)
{
    buf_clear(&m->template_text);
    json_free(m->kwargs_doc);
    m->kwargs_doc = NULL;
}
