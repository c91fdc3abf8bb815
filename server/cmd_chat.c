/* cmd_chat.c - `quern chat`: a conversation in the terminal, engine in process.  Lines starting
 * with / are commands.  Owns the conversation.  Thread: main; the engine's notify only signals it.
 */
#include "server/cmd.h"
#include "server/cmd_model.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

typedef struct {
    engine *eng;
    buf history; /* JSON objects of the turns so far, comma-separated */
    bool no_think, color;
    pthread_mutex_t mu;
    pthread_cond_t cv;
    bool news; /* mu */
} talk;

static void on_news(void *v)
{
    talk *t = v;
    pthread_mutex_lock(&t->mu);
    t->news = true;
    pthread_cond_signal(&t->cv);
    pthread_mutex_unlock(&t->mu);
}

static void add_turn(talk *t, const char *role, const char *text, size_t n)
{
    if (t->history.len) buf_putc(&t->history, ',');
    buf_printf(&t->history, "{\"role\":\"%s\",\"content\":", role);
    buf_put_json(&t->history, text, n);
    buf_putc(&t->history, '}');
}

/* The conversation to a request; NULL with e filled. */
static request *submit(talk *t, err *e)
{
    const engine_info_t *info = engine_info(t->eng);
    buf text = {0};
    const json *messages;
    chat_prompt prompt = {0};
    chat_fault fault = {0};
    token_list ids = {0};
    request *r = NULL;
    buf_printf(&text, "[%s]", buf_str(&t->history));
    json_doc *doc = json_parse(buf_str(&text), text.len, NULL, &messages, e);
    if (!doc) goto out;
    chat_input in = {.messages = messages,
                     .add_generation_prompt = -1,
                     .continue_final = -1,
                     .thinking = t->no_think ? 0 : -1};
    if (chat_render(info->chat, &in, &prompt, &fault, e)) goto out;
    const template_output *p = &prompt.prompt;
    if (tokenizer_encode(info->tok, buf_str(&p->text), p->text.len, true, p->closed, p->n_closed,
                         &ids, e))
        goto out;
    sampling s = sampling_default(t->eng);
    s.max_tokens = -1;
    s.n_logprobs = s.n_prompt_logprobs = -1;
    if (getrandom(&s.seed, sizeof s.seed, 0) != sizeof s.seed) s.seed = 1;
    request_spec spec = {.prompt = ids.v,
                         .n_prompt = (int)ids.n,
                         .n = 1,
                         .s = s,
                         .think = prompt.think,
                         .cache_prompt = true,
                         .notify = on_news,
                         .notify_arg = t};
    if (engine_submit(t->eng, &spec, &r, NULL, e)) r = NULL;
out:
    token_list_clear(&ids);
    chat_prompt_clear(&prompt);
    json_free(doc);
    buf_clear(&text);
    return r;
}

static void show(talk *t, const delta *d, bool *in_thought, buf *answer)
{
    for (int i = 0; i < d->said.n; i++) {
        bool thought = d->said.piece[i].kind == SAID_THOUGHT;
        if (thought && t->color && !*in_thought) fputs("\033[2m", stdout);
        if (!thought && *in_thought) fputs(t->color ? "\033[0m\n\n" : "\n\n", stdout);
        *in_thought = thought;
        fwrite(said_text(&d->said, i), 1, d->said.piece[i].n, stdout);
        if (!thought) buf_put(answer, said_text(&d->said, i), d->said.piece[i].n);
    }
    fflush(stdout);
}

/* One question, its answer streamed; 0 or the exit code. */
static int ask(talk *t, const char *text, size_t n)
{
    err e = {0};
    buf answer = {0};
    bool in_thought = false;
    int code = 0;
    size_t before = t->history.len;
    add_turn(t, "user", text, n);
    request *r = submit(t, &e);
    if (!r) {
        t->history.len = before; /* the turn did not happen */
        return cmd_fail(&e);
    }
    while (!request_done(r)) {
        pthread_mutex_lock(&t->mu);
        while (!t->news) pthread_cond_wait(&t->cv, &t->mu);
        t->news = false;
        pthread_mutex_unlock(&t->mu);
        delta *list = request_take(r);
        for (const delta *d = list; d; d = d->next) {
            show(t, d, &in_thought, &answer);
            if (d->finish == FINISH_ERROR) {
                err_set(&e, d->error, "the engine failed: %s", err_words(d->error));
                code = cmd_fail(&e);
            }
        }
        delta_free(list);
    }
    request_release(r);
    if (in_thought && t->color) fputs("\033[0m", stdout);
    putchar('\n');
    add_turn(t, "assistant", buf_str(&answer), answer.len);
    buf_clear(&answer);
    return code;
}

/* /exit, /clear, /think, /nothink; true if the line was a command. */
static bool command_line(talk *t, const char *line, bool *quit)
{
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit") || !strcmp(line, "/bye")) *quit = true;
    else if (!strcmp(line, "/clear")) buf_reset(&t->history);
    else if (!strcmp(line, "/think")) t->no_think = false;
    else if (!strcmp(line, "/nothink")) t->no_think = true;
    else return false;
    return true;
}

static int loop(talk *t)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    bool quit = false, tty = isatty(STDIN_FILENO);
    int code = 0;
    if (tty) printf("/exit ends, /clear forgets, /think and /nothink switch the thinking\n");
    while (!quit) {
        if (tty) {
            fputs("> ", stdout);
            fflush(stdout);
        }
        if ((n = getline(&line, &cap, stdin)) < 0) break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
        if (!n || command_line(t, line, &quit)) continue;
        code = ask(t, line, (size_t)n);
        if (code && !tty) break;
    }
    free(line);
    return code;
}

int cmd_chat(const options *o)
{
    err e = {0};
    model_setup m;
    talk t = {.no_think = o->no_think,
              .color = isatty(STDOUT_FILENO),
              .mu = PTHREAD_MUTEX_INITIALIZER,
              .cv = PTHREAD_COND_INITIALIZER};
    int code;
    if (model_setup_init(&m, o, &e) || !(t.eng = engine_open(&m.o, &e)) || engine_load(t.eng, &e))
        code = cmd_fail(&e);
    else code = o->prompt ? ask(&t, o->prompt, strlen(o->prompt)) : loop(&t);
    engine_close(t.eng);
    buf_clear(&t.history);
    model_setup_clear(&m);
    return code;
}
