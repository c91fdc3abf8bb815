/* options.h - every option once: command line, --config file, environment QUERN_<NAME>, --help and
 * /props all come from the same table (options.c).  Precedence: command line > environment > file >
 * default.  Unknown options, bad values and missing arguments are errors that name the option;
 * options of later stages are refused as "not supported yet".  A file or the environment may name
 * options that act in other commands; on the command line that is an error.
 * Thread: parsed by main before threads start, const afterwards. */
#ifndef QUERN_CONFIG_OPTIONS_H
#define QUERN_CONFIG_OPTIONS_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    char **v; /* [n] owned */
    int n;
} str_list;

typedef struct {
    /* model */
    char *model; /* positional; NULL = demo model */
    str_list served_model_name;
    bool any_model;
    int64_t max_model_len;              /* 0 = the model's */
    char *rope_scaling;                 /* JSON */
    char *generation_config;            /* "auto" or "none" */
    char *override_generation_config;   /* JSON */
    char *chat_template;                /* file path or literal template text */
    char *default_chat_template_kwargs; /* JSON */
    /* machine */
    char *device, *cpu_isa; /* device: as config/device.h reads it, in lower case; cpu_isa "ref" is
                               turned into device "ref" */
    int64_t threads;        /* 0 = all processors of this process */
    bool bf16_repack;
    int64_t tensor_parallel_size;
    double collective_timeout;       /* seconds */
    bool batch_invariant, no_graphs; /* cuda */
    bool dummy_weights;
    char *dummy_type;
    /* engine */
    int64_t max_num_seqs, max_num_batched_tokens; /* 0 = from the memory plan, the backend's */
    int64_t max_queue;
    uint64_t kv_cache_memory; /* bytes: 8G, 512M, ...; 0 = planned */
    char *kv_cache_dtype;
    bool embeddings;
    char *pooling;   /* auto, mean, last, cls, rank */
    char *attention; /* auto, causal, non-causal */
    bool no_prefix_caching, allow_priority, cache_per_key;
    /* server */
    char *host;
    int64_t port, max_conn;
    str_list api_key; /* one a use: a key may hold commas */
    char *api_key_file;
    int64_t key_max_concurrent, key_rpm, key_tpm; /* of each key; 0 = no limit */
    bool open_metrics;
    str_list allowed_hosts;
    char *cors_origins; /* NULL = the loopback set */
    char *tls_cert, *tls_key;
    uint64_t max_body, max_body_total;
    double header_timeout, body_timeout;             /* seconds */
    double request_timeout, drain_timeout, sse_ping; /* seconds; 0 = none, -, -1 = off */
    bool no_timings, no_slots;
    char *tool_format;     /* auto, hermes, qwen3_coder, xml, react, function, none */
    char *reasoning_field; /* both, reasoning_content, reasoning */
    int64_t response_store;
    bool allow_request_template;
    char *log_format, *log_level;
    char *config;
    /* debugging */
    char *trace_ops;
    bool dump_plan, trace_http;
    /* other commands */
    bool json, jsonl;
    char *type;                            /* quantize */
    int64_t reps;                          /* bench */
    char *decode_batches, *prefill_tokens; /* bench: "1,8,32" */
    int64_t ctx;                           /* bench, inspect */
    int64_t seqs;                          /* inspect */
    char *assume_type;                     /* inspect */
    char *effort_budgets, *think_end_text;
    char *ollama_version;
    bool keep_billing_header;
    char *anthropic_thinking;
    char *format, *thinking, *tools; /* parse-output */
    bool after_label;
    int64_t split;                    /* parse-output: bytes a feed, 0 = all at once */
    char *schema, *batch, *key_order; /* grammar-check */
    char *regex, *gbnf, *choice;      /* grammar-check, instead of a schema */
    char *prompt;                     /* chat: one question, no terminal */
    bool no_think;                    /* chat */
    str_list args;                    /* positional arguments after the first */
    str_list warnings;                /* for the log, once its format is known */
    bool help;
} options;

typedef enum {
    CMD_SERVE = 1,
    CMD_CHAT = 2,
    CMD_BENCH = 4,
    CMD_INSPECT = 8,
    CMD_TOKENIZE = 16,
    CMD_DETOKENIZE = 32,
    CMD_RENDER = 64,
    CMD_QUANTIZE = 128,
    CMD_PARSE_OUTPUT = 256,
    CMD_GRAMMAR_CHECK = 512
} command;

/* Parses argv[2..argc) for one command.  e names the option and what it accepts. */
int options_parse(options *o, command cmd, int argc, char **argv, err *e);
void options_free(options *o);
/* Help text of a command (options that act there, with defaults). */
void options_help(command cmd, buf *out);
/* "8G", "512M", "1048576" -> bytes. */
bool options_parse_bytes(const char *text, uint64_t *out);

#endif
