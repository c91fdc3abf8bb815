/* main.c - the command line: picks the subcommand, parses its options, maps failures to exit codes
 * (0 ok, 1 run-time failure, 2 bad input or usage).  Owns the options. */
#include "server/cmd.h"
#include "server/cmd_model.h"

#include "base/log.h"
#include "engine/tools.h"
#include "version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    command id;
    int (*fn)(const options *);
    const char *words;
} commands[] = {
    {"serve", CMD_SERVE, cmd_serve, "serve a model over HTTP (OpenAI-compatible)"},
    {"chat", CMD_CHAT, cmd_chat, "talk to a model in the terminal"},
    {"bench", CMD_BENCH, cmd_bench, "measure prefill and decode against the machine's roofs"},
    {"inspect", CMD_INSPECT, cmd_inspect, "what is in a checkpoint and whether it fits here"},
    {"quantize", CMD_QUANTIZE, cmd_quantize,
     "IN OUT --type Q8_0: write a GGUF with smaller weights"},
    {"tokenize", CMD_TOKENIZE, cmd_tokenize, "text on stdin to token ids"},
    {"detokenize", CMD_DETOKENIZE, cmd_detokenize, "token ids on stdin to text"},
    {"render", CMD_RENDER, cmd_render, "chat request on stdin to the prompt text"},
    {"parse-output", CMD_PARSE_OUTPUT, cmd_parse_output,
     "generated text on stdin to reasoning, content and tool calls"},
    {"grammar-check", CMD_GRAMMAR_CHECK, cmd_grammar_check,
     "which texts keep to a JSON Schema, a pattern, a GBNF grammar"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *f)
{
    fprintf(f, "quern %s: serves Qwen models\n\nusage: quern COMMAND [MODEL] [options]\n\n",
            QUERN_VERSION);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-13s %s\n", commands[i].name, commands[i].words);
    fprintf(
        f,
        "\nMODEL is a Hugging Face directory or a GGUF file; without it the demo model is used.\n"
        "quern COMMAND --help lists the options of a command.\n");
}

int cmd_inspect(const options *o)
{
    err e = {0};
    model_setup m;
    buf out = {0};
    int code = 0;
    const inspect_options i = {.ctx = o->ctx,
                               .seqs = (int)o->seqs,
                               .tp = (int)o->tensor_parallel_size,
                               .assume_type = o->assume_type,
                               .json = o->json};
    bool failed = model_setup_init(&m, o, &e) || tool_inspect(&m.o, &i, &out, &e);
    fputs(buf_str(&out), stdout); /* what was found before a refusal is worth seeing */
    if (failed) code = cmd_fail(&e);
    buf_clear(&out);
    model_setup_clear(&m);
    return code;
}

/* "1,8,32" -> ints; 0 and a message if the text is not that. */
static int int_list(const char *text, const char *option, int *v, int cap, err *e)
{
    int n = 0;
    for (const char *s = text; s && *s;) {
        char *end;
        long k = strtol(s, &end, 10);
        if (end == s || k < 1 || k > 1 << 20 || (*end && *end != ',') || n == cap) {
            err_set(e, ERR_INVALID,
                    "%s takes up to %d positive numbers separated by commas, got '%s'", option, cap,
                    text);
            return 0;
        }
        v[n++] = (int)k;
        s = *end ? end + 1 : end;
    }
    return n;
}

int cmd_bench(const options *o)
{
    enum { CAP = 16 };
    err e = {0};
    model_setup m;
    buf out = {0};
    int decode[CAP], prefill[CAP], code = 0;
    bench_options b = {.json = o->json,
                       .reps = (int)o->reps,
                       .decode = decode,
                       .prefill = prefill,
                       .decode_ctx = o->ctx};
    b.n_decode = int_list(o->decode_batches, "--decode-batches", decode, CAP, &e);
    b.n_prefill = int_list(o->prefill_tokens, "--prefill-tokens", prefill, CAP, &e);
    if (!b.n_decode) b.decode = NULL;
    if (!b.n_prefill) b.prefill = NULL;
    if (e.code) return cmd_fail(&e);
    if (model_setup_init(&m, o, &e) || tool_bench(&m.o, &b, &out, &e)) code = cmd_fail(&e);
    else fputs(buf_str(&out), stdout);
    buf_clear(&out);
    model_setup_clear(&m);
    return code;
}

static void show_progress(void *arg, double p)
{
    (void)arg;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rquantizing %3.0f%%%s", p * 100, p >= 1 ? "\n" : "");
}

int cmd_quantize(const options *o)
{
    err e = {0};
    if (!o->model || o->args.n != 1 || !o->type) {
        err_set(&e, ERR_INVALID,
                "usage: quern quantize IN OUT.gguf --type "
                "Q8_0|Q4_0|Q5_0|Q4_K|Q6_K|Q4_K_M|F16|BF16|F32");
        return cmd_fail(&e);
    }
    if (tool_quantize(o->model, o->args.v[0], o->type, (int)o->threads, show_progress, NULL, &e))
        return cmd_fail(&e);
    return 0;
}

static int run(int i, int argc, char **argv)
{
    options o = {0};
    err e = {0};
    int code;
    if (options_parse(&o, commands[i].id, argc, argv, &e)) {
        code = cmd_fail(&e);
        if (code == 2) fprintf(stderr, "quern %s --help lists the options\n", commands[i].name);
    } else if (o.help) {
        buf help = {0};
        options_help(commands[i].id, &help);
        fputs(buf_str(&help), stdout);
        buf_clear(&help);
        code = 0;
    } else {
        log_level level = !strcmp(o.log_level, "debug")   ? LOG_DEBUG
                          : !strcmp(o.log_level, "warn")  ? LOG_WARN
                          : !strcmp(o.log_level, "error") ? LOG_ERROR
                                                          : LOG_INFO;
        log_init(level, !strcmp(o.log_format, "json"));
        for (int k = 0; k < o.warnings.n; k++) log_warn("%s", o.warnings.v[k]);
        code = commands[i].fn(&o);
    }
    options_free(&o);
    return code;
}

int main(int argc, char **argv)
{
    if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version"))) {
        printf("quern %s (%s)\n", QUERN_VERSION, QUERN_COMMIT);
        return 0;
    }
    if (argc > 1 &&
        (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help") || !strcmp(argv[1], "-h"))) {
        usage(stdout);
        return 0;
    }
    for (int i = 0; argc > 1 && i < N_COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) return run(i, argc, argv);
    if (argc > 1) fprintf(stderr, "quern: unknown command '%s'\n", argv[1]);
    usage(stderr);
    return 2;
}
