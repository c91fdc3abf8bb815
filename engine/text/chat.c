/* chat.c - from a chat request to its prompt: switches, variables, rendering, the place where the
 * answer begins and how it must be read.
 * Owns the compiled template of a chat_format.  Refuses what chat_messages.c and chat_tools.c
 * refuse, and what the template raises.  Thread: a chat_format is const; rendering from any. */
#include "engine/text/chat_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Plain ChatML, for checkpoints without a template. */
static const char chatml[] =
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

static const char *const effort_names[] = {"minimal", "low", "medium", "high", "xhigh", "max"};
enum { N_EFFORTS = 6, MAX_VARS = 96, REQUEST_MEMORY = 1 << 30, TRIAL_STEPS = 1000000 };

/* Stands where a continued text ends; a client cannot know the bytes are special to no one. */
static const char mark[] = "\x01\x02quern-continues-here\x02\x01";

static const json yes = {.type = JSON_TRUE}, no = {.type = JSON_FALSE}, null = {.type = JSON_NULL};

/* ---- opening --------------------------------------------------------------------------------- */

/* Renders one user turn; out is empty if the template raises. */
static void try_user(const chat_format *f, const char *effort, buf *out)
{
    static const char text[] = "[{\"role\":\"user\",\"content\":\"probe-user\"}]";
    const json *messages;
    json_doc *d = json_parse(text, sizeof text - 1, NULL, &messages, NULL);
    json level = {.type = JSON_STRING, .str = effort, .len = effort ? strlen(effort) : 0};
    template_var v[] = {{"messages", messages, false},
                        {"add_generation_prompt", &yes, true},
                        {"tools", &null, true},
                        {"documents", &null, true},
                        {"bos_token", &f->bos, true},
                        {"eos_token", &f->eos, true},
                        {"reasoning_effort", effort ? &level : NULL, true}};
    template_input in = {.var = v, .n_var = sizeof v / sizeof *v, .max_steps = TRIAL_STEPS};
    template_output o = {0};
    err e = {0};
    buf_reset(out);
    if (d && !template_render(f->t, &in, &o, &e)) buf_put(out, buf_str(&o.text), o.text.len);
    template_output_clear(&o);
    json_free(d);
}

static bool quoted_in(const char *text, size_t n, const char *word)
{
    char one[24], two[24];
    int k = snprintf(one, sizeof one, "'%s'", word);
    snprintf(two, sizeof two, "\"%s\"", word);
    return memmem(text, n, one, (size_t)k) || memmem(text, n, two, (size_t)k);
}

/* Which effort levels the template names and accepts. */
static void find_efforts(chat_format *f, const char *text, size_t n)
{
    buf b = {0};
    for (int i = 0; i < N_EFFORTS && f->traits.effort; i++) {
        if (!quoted_in(text, n, effort_names[i])) continue;
        try_user(f, effort_names[i], &b);
        if (b.len) f->efforts |= 1u << i;
    }
    buf_clear(&b);
}

/* The system text the template starts with when a conversation has none. */
static void find_default_system(chat_format *f)
{
    static const char open[] = "<|im_start|>system\n";
    buf b = {0};
    try_user(f, NULL, &b);
    const char *from = b.len ? strstr(b.v, open) : NULL,
               *user = b.len ? strstr(b.v, "probe-user") : NULL;
    const char *to = from ? strstr(from, "<|im_end|>") : NULL;
    if (from && user && to && from < user && to < user) {
        from += sizeof open - 1;
        f->default_system = arena_copy(&f->mem, from, (size_t)(to - from));
    }
    buf_clear(&b);
}

/* Variables that are the server's own. */
static bool protected_name(const char *name)
{
    static const char *const names[] = {"messages", "tools", "add_generation_prompt", "bos_token",
                                        "eos_token"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name)) return true;
    return false;
}

chat_format *chat_format_open(const char *text, size_t n, const char *bos_text,
                              const char *eos_text, const json *default_kwargs, err *e)
{
    chat_format *f = calloc(1, sizeof *f);
    if (!f) {
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (!text) {
        text = chatml;
        n = sizeof chatml - 1;
    }
    const char *bos = bos_text ? bos_text : "", *eos = eos_text ? eos_text : "";
    f->t = template_compile(text, n, e);
    if (!f->t) goto fail;
    f->bos = (json){
        .type = JSON_STRING, .len = strlen(bos), .str = arena_copy(&f->mem, bos, strlen(bos))};
    f->eos = (json){
        .type = JSON_STRING, .len = strlen(eos), .str = arena_copy(&f->mem, eos, strlen(eos))};
    f->text = arena_copy(&f->mem, text, n);
    if (!f->bos.str || !f->eos.str || !f->text) {
        err_set(e, ERR_NOMEM, "out of memory");
        goto fail;
    }
    if (default_kwargs && default_kwargs->type != JSON_OBJECT) {
        err_set(e, ERR_INVALID, "--default-chat-template-kwargs must be a JSON object, got %s",
                json_type_name(default_kwargs));
        goto fail;
    }
    for (const json *v = default_kwargs ? default_kwargs->child : NULL; v; v = v->next)
        if (protected_name(v->key)) {
            err_set(e, ERR_INVALID,
                    "--default-chat-template-kwargs cannot set '%s': each request has its own",
                    v->key);
            goto fail;
        }
    f->default_kwargs = default_kwargs;
    f->traits = template_inspect(f->t);
    f->calls = memmem(text, n, "tool_calls", 10) != NULL;
    find_efforts(f, text, n);
    if (!f->traits.tools) find_default_system(f);
    return f;
fail:
    chat_format_free(f);
    return NULL;
}

bool chat_format_use_calls(chat_format *f, const char *name)
{
    if (!name || !strcmp(name, "auto")) return true;
    if (!call_format_by_name(name, &f->calls_as)) return false;
    f->calls_set = true;
    if (!f->default_system) find_default_system(f);
    return true;
}

call_format chat_format_calls(const chat_format *f)
{
    if (f->calls_set) return f->calls_as;
    return f->traits.xml_calls ? CALLS_XML : CALLS_HERMES;
}

const char *chat_format_text(const chat_format *f)
{
    return f->text;
}

void chat_format_free(chat_format *f)
{
    if (!f) return;
    template_free(f->t);
    arena_clear(&f->mem);
    free(f);
}

const template_traits *chat_format_traits(const chat_format *f)
{
    return &f->traits;
}

void chat_prompt_clear(chat_prompt *p)
{
    template_output_clear(&p->prompt);
    buf_clear(&p->ignored);
    buf_clear(&p->continued);
    p->think = THINK_NONE;
}

/* ---- switches -------------------------------------------------------------------------------- */

typedef struct {
    template_var v[MAX_VARS];
    size_t n;
} variables;

static bool put_var(variables *vars, const char *name, const json *value, bool trusted)
{
    if (vars->n == MAX_VARS) return false;
    vars->v[vars->n++] = (template_var){name, value, trusted};
    return true;
}

/* -1 not set, 0 off, 1 on: R3 without the kwargs, which reach the template by themselves. */
static int thinking_wish(const chat_input *in)
{
    if (in->thinking >= 0) return in->thinking;
    if (in->effort) return strcmp(in->effort, "none") != 0;
    return -1;
}

/* Whether thinking was turned off by whatever counts first. */
static bool thinking_off(const talk *k)
{
    const json *own = json_given(k->in->kwargs, "enable_thinking");
    int wish = thinking_wish(k->in);
    if (own) return own->type == JSON_FALSE;
    if (wish >= 0) return !wish;
    return json_is(json_get(k->f->default_kwargs, "enable_thinking"), JSON_FALSE);
}

/* The level the template knows that is nearest to the wanted one, the higher of two; NULL if it
 * knows none. */
static const char *nearest_effort(const chat_format *f, int want)
{
    for (int d = 0; d < N_EFFORTS; d++) {
        if (want + d < N_EFFORTS && f->efforts >> (want + d) & 1) return effort_names[want + d];
        if (want - d >= 0 && f->efforts >> (want - d) & 1) return effort_names[want - d];
    }
    return NULL;
}

static int put_switches(talk *k, variables *vars)
{
    const char *effort = k->in->effort;
    int wish = thinking_wish(k->in), level = -1;
    if (wish >= 0) put_var(vars, "enable_thinking", wish ? &yes : &no, true);
    if (!effort || !strcmp(effort, "none")) return 0;
    for (int i = 0; i < N_EFFORTS; i++)
        if (!strcmp(effort, effort_names[i])) level = i;
    if (level < 0)
        return talk_bad(k, "invalid_value", "reasoning_effort",
                        "'reasoning_effort' must be none, minimal, low, medium, high, xhigh or "
                        "max, got '%.64s'",
                        effort);
    const char *known = nearest_effort(k->f, level);
    json *node = known ? node_str(k, known, strlen(known)) : NULL;
    if (known && !node) return talk_nomem(k);
    if (node) put_var(vars, "reasoning_effort", node, true);
    return 0;
}

static int put_kwargs(talk *k, variables *vars, const json *kwargs, bool trusted)
{
    if (!kwargs || kwargs->type == JSON_NULL) return 0;
    if (kwargs->type != JSON_OBJECT)
        return talk_bad(k, "invalid_type", "chat_template_kwargs",
                        "'chat_template_kwargs' must be an object, got %s", json_type_name(kwargs));
    for (const json *v = kwargs->child; v; v = v->next) {
        /* V3: a switch that is null is not set, so the next one of R3 decides. */
        if (v->type == JSON_NULL && !strcmp(v->key, "enable_thinking")) continue;
        if (!protected_name(v->key)) {
            if (put_var(vars, v->key, v, trusted)) continue;
            return talk_bad(k, "invalid_value", "chat_template_kwargs",
                            "'chat_template_kwargs' must hold at most %d variables", MAX_VARS / 2);
        }
        if (k->ignored->len) buf_putc(k->ignored, ',');
        buf_printf(k->ignored, "chat_template_kwargs.%s", v->key);
    }
    return 0;
}

/* ---- continuing ------------------------------------------------------------------------------ */

/* Whether the last message is to be continued: 1, 0, or negative with the fault. */
static int wants_continuation(talk *k)
{
    const chat_msg *last = &k->msg[k->n_msg - 1];
    char path[FIELD_PATH];
    if (k->in->continue_final != 1 && !last->prefix) return 0;
    if (k->in->continue_final == 1 && k->in->add_generation_prompt == 1)
        return talk_bad(
            k, "invalid_value", "continue_final_message",
            "'continue_final_message' and 'add_generation_prompt' must not both be true");
    field_path(path, "messages[%zu]", k->in->messages->len - 1);
    if (last->role != ROLE_ASSISTANT)
        return talk_bad(k, "invalid_value", path,
                        "'%s' must be an assistant message to be continued", path);
    if (last->calls)
        return talk_bad(k, "invalid_value", path, "'%s' has tool calls and cannot be continued",
                        path);
    return 1;
}

/* s with the mark behind it. */
static json *marked(talk *k, const json *s)
{
    buf b = {0};
    buf_put(&b, s->str, s->len);
    buf_put(&b, mark, sizeof mark - 1);
    return node_take(k, &b);
}

static bool is_empty(const json *content)
{
    return content->type == JSON_STRING && !content->len;
}

/* Puts the mark where the last message's text ends; *text is that text. */
static int set_mark(talk *k, const json **text)
{
    chat_msg *m = &k->msg[k->n_msg - 1];
    if (is_empty(m->content) && m->reasoning && m->reasoning->len) {
        *text = m->reasoning;
        m->reasoning = marked(k, m->reasoning);
        return m->reasoning ? 0 : talk_nomem(k);
    }
    if (m->content->type == JSON_STRING) {
        *text = m->content;
        m->content = marked(k, m->content);
        return m->content ? 0 : talk_nomem(k);
    }
    json *list = node_list(k, JSON_ARRAY);
    for (const json *p = m->content->child; p; p = p->next) {
        json *part = node_list(k, JSON_OBJECT);
        *text = json_get(p, "text");
        json *own = p->next ? node_copy(k, *text) : marked(k, *text);
        if (!node_add(part, "type", node_str(k, "text", 4)) || !node_add(part, "text", own) ||
            !node_add(list, NULL, part))
            return talk_nomem(k);
    }
    m->content = list;
    return 0;
}

/* The text that will be continued, as the template prints it. */
static void note_continued(const talk *k, chat_prompt *out)
{
    const chat_msg *m = &k->msg[k->n_msg - 1];
    out->continues_thought = is_empty(m->content) && m->reasoning && m->reasoning->len;
    const json *text = out->continues_thought ? m->reasoning : m->content;
    if (text->type == JSON_STRING) buf_put(&out->continued, text->str, text->len);
    for (const json *p = text->type == JSON_ARRAY ? text->child : NULL; p; p = p->next)
        buf_put(&out->continued, json_get(p, "text")->str, json_get(p, "text")->len);
}

/* Cuts the prompt where the mark stands. */
static int cut_at_mark(talk *k, template_output *o)
{
    size_t n = sizeof mark - 1, at = SIZE_MAX;
    for (size_t i = o->text.len >= n ? o->text.len - n + 1 : 0; i-- > 0;)
        if (o->text.v[i] == mark[0] && !memcmp(o->text.v + i, mark, n)) {
            at = i;
            break;
        }
    if (at == SIZE_MAX)
        return talk_bad(k, "unsupported_value", k->goes_on ? "messages" : "continue_final_message",
                        "the model's chat template does not render the final message, so it cannot "
                        "be continued");
    o->text.len = at;
    o->text.v[at] = 0;
    while (o->n_closed && o->closed[o->n_closed - 1].start >= at) o->n_closed--;
    if (o->n_closed && o->closed[o->n_closed - 1].end > at) o->closed[o->n_closed - 1].end = at;
    return 0;
}

/* ---- how the answer is to be read ------------------------------------------------------------ */

/* 1 if the last think tag of s[n] opens, 0 if it closes, -1 if there is none. */
static int last_tag(const char *s, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        if (s[i] != '<') continue;
        if (n - i >= 7 && !memcmp(s + i, "<think>", 7)) return 1;
        if (n - i >= 8 && !memcmp(s + i, "</think>", 8)) return 0;
    }
    return -1;
}

/* The same over what the template itself wrote; tail only: behind the client's last text. */
static int last_own_tag(const template_output *o, bool tail)
{
    size_t to = o->text.len;
    for (size_t i = o->n_closed + 1; i-- > 0;) {
        size_t from = i ? o->closed[i - 1].end : 0;
        int tag = last_tag(buf_str(&o->text) + from, to - from);
        if (tag >= 0 || tail) return tag;
        if (i) to = o->closed[i - 1].start;
    }
    return -1;
}

/* The prompt ends with text of an open thought, not right after its tag. */
static bool inside_thought(const buf *text)
{
    static const char tag[] = "<think>";
    const char *at = NULL;
    for (const char *s = buf_str(text); (s = strstr(s, tag)); s += sizeof tag - 1) at = s;
    return at && at[sizeof tag - 1 + strspn(at + sizeof tag - 1, " \t\r\n")];
}

/* continued: text that is gone on with, NULL: none. */
static think_mode reading(const talk *k, const template_output *o, const json *continued,
                          bool *closed)
{
    if (!k->f->traits.think) return THINK_NONE;
    int tag = continued ? last_tag(continued->str, continued->len) : -1;
    if (tag < 0) tag = last_own_tag(o, !continued && !k->goes_on);
    *closed = tag == 0;
    if (tag != 1) return THINK_MODEL_OPENS;
    return inside_thought(&o->text) ? THINK_PROMPT_TEXT : THINK_PROMPT_OPEN;
}

/* Off on a template that always opens a thought: close it, as Qwen3 does. */
static int close_thought(talk *k, chat_prompt *p)
{
    buf *t = &p->prompt.text;
    buf_puts(t, t->len && t->v[t->len - 1] == '\n' ? "\n</think>\n\n" : "\n\n</think>\n\n");
    p->think = THINK_MODEL_OPENS;
    p->may_think = false;
    return buf_ok(t) ? 0 : talk_nomem(k);
}

/* ---- rendering ------------------------------------------------------------------------------- */

static int put_variables(talk *k, variables *vars, bool generate)
{
    const json *documents = k->in->documents;
    json *messages = talk_messages(k);
    int code;
    if (!messages) return talk_nomem(k);
    put_var(vars, "documents", documents && documents->type != JSON_NULL ? documents : &null,
            false);
    if ((code = put_kwargs(k, vars, k->f->default_kwargs, true))) return code;
    if ((code = put_switches(k, vars))) return code;
    size_t room = MAX_VARS - 8;
    if (json_is(k->in->kwargs, JSON_OBJECT) && vars->n + k->in->kwargs->len > room)
        return talk_bad(k, "invalid_value", "chat_template_kwargs",
                        "'chat_template_kwargs' must hold at most %zu variables", room - vars->n);
    if ((code = put_kwargs(k, vars, k->in->kwargs, false))) return code;
    put_var(vars, "messages", messages, false);
    put_var(vars, "tools", k->tools ? k->tools : &null, false);
    put_var(vars, "add_generation_prompt", generate ? &yes : &no, true);
    put_var(vars, "bos_token", &k->f->bos, true);
    put_var(vars, "eos_token", &k->f->eos, true);
    return 0;
}

static int render(talk *k, chat_prompt *out, bool generate)
{
    variables *vars = arena_zalloc(&k->mem, sizeof *vars);
    if (!vars) return talk_nomem(k);
    int code = put_variables(k, vars, generate);
    if (code) return code;
    template_input in = {.var = vars->v, .n_var = vars->n, .now = time(NULL)};
    code = template_render(k->f->t, &in, &out->prompt, k->e);
    if (code == ERR_NOMEM) return talk_nomem(k);
    if (code && k->fault) {
        *k->fault = (chat_fault){.code = "template_error"};
        snprintf(k->fault->param, sizeof k->fault->param, "messages");
    }
    return code;
}

static int make_prompt(talk *k, chat_prompt *out)
{
    const json *continued = NULL;
    int code, cont = 0;
    if ((code = talk_read(k)) || (code = talk_tools(k))) return code;
    if ((cont = wants_continuation(k)) < 0) return cont;
    k->continued = cont;
    if ((code = talk_place_system(k))) return code;
    if (cont) note_continued(k, out);
    if ((code = talk_write_tools(k))) return code;
    bool inside = cont || k->goes_on; /* the prompt ends inside the last message */
    if (inside && (code = set_mark(k, &continued))) return code;
    bool generate = !inside && k->in->add_generation_prompt != 0;
    if ((code = render(k, out, generate))) return code;
    if (inside && (code = cut_at_mark(k, &out->prompt))) return code;
    bool closed = false;
    out->think = reading(k, &out->prompt, cont ? continued : NULL, &closed);
    out->may_think = out->think == THINK_MODEL_OPENS && !closed && !inside && !thinking_off(k);
    bool tools = k->in->tools && k->in->tools->len;
    out->calls = tools ? chat_format_calls(k->f) : CALLS_NONE;
    out->after_label = k->goes_on;
    if (generate && out->think == THINK_PROMPT_OPEN && thinking_off(k))
        code = close_thought(k, out);
    return code;
}

static int flag(const json *body, const char *name)
{
    const json *j = json_get(body, name);
    return json_is_bool(j) ? j->type == JSON_TRUE : -1;
}

chat_input chat_input_of(const json *body)
{
    const json *effort = json_get(body, "reasoning_effort");
    return (chat_input){.messages = json_get(body, "messages"),
                        .tools = json_get(body, "tools"),
                        .documents = json_get(body, "documents"),
                        .kwargs = json_get(body, "chat_template_kwargs"),
                        .tool_choice = json_get(body, "tool_choice"),
                        .add_generation_prompt = flag(body, "add_generation_prompt"),
                        .continue_final = flag(body, "continue_final_message"),
                        .thinking = flag(body, "enable_thinking"),
                        .effort = json_is(effort, JSON_STRING) ? effort->str : NULL};
}

int chat_render(const chat_format *f, const chat_input *in, chat_prompt *out, chat_fault *fault,
                err *e)
{
    err own = {0};
    talk k = {.f = f,
              .in = in,
              .fault = fault,
              .e = e ? e : &own,
              .ignored = &out->ignored,
              .mem.limit = REQUEST_MEMORY};
    if (fault) *fault = (chat_fault){0};
    buf_reset(&out->ignored);
    buf_reset(&out->continued);
    int code = make_prompt(&k, out);
    if (!code && !(buf_ok(&out->ignored) && buf_ok(&out->continued))) code = talk_nomem(&k);
    for (size_t i = 0; i < k.n_docs; i++) json_free(k.docs[i]);
    free(k.docs);
    arena_clear(&k.mem);
    return code;
}
