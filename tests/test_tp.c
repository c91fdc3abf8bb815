/* test_tp.c - tensor parallelism: who holds what, by hand-computed figures; logits of N ranks
 * against those of one, the rule of bits at every N, formats cut at their blocks; the engine over
 * ranks; and what happens when a rank hangs or faults in the middle of a step. */
#include "engine/engine_impl.h"
#include "engine/shard.h"
#include "engine/tools.h"
#include "tests/client.h"
#include "tests/quick.h"
#include "tests/tp_rig.h"

#define DATA "tests/data/models/"

static const backend_options cpu = {.name = "cpu", .isa = "auto", .threads = 1},
                             ref = {.name = "ref"};

/* ---- figures ----------------------------------------------------------------------------------
 */

static const model_config qwen_32b = {.hidden = 5120,
                                      .layers = 64,
                                      .heads = 40,
                                      .kv_heads = 8,
                                      .head_dim = 128,
                                      .ff = 27648,
                                      .vocab = 152064},
                          qwen_72b = {.hidden = 8192,
                                      .layers = 80,
                                      .heads = 64,
                                      .kv_heads = 8,
                                      .head_dim = 128,
                                      .ff = 29568,
                                      .vocab = 152064};
static const shard_units floats = {1, 1}, k_quants = {256, 256}, q8 = {32, 32};

static void check_span(shard_span s, int64_t at, int64_t n)
{
    ck_assert_int_eq(s.at, at);
    ck_assert_int_eq(s.n, n);
}

START_TEST(figures)
{
    shard s = shard_make(&qwen_32b, floats, 8, 3);
    ck_assert_int_eq(s.heads, 5);
    ck_assert_int_eq(s.kv_heads, 1);
    check_span(s.q, 3 * 640, 640);
    check_span(s.kv, 3 * 128, 128);
    check_span(s.ff, 3 * 3456, 3456);
    check_span(s.vocab, 3 * 19456, 19456); /* 149 units of 1024: five ranks hold 19, three 18 */
    s = shard_make(&qwen_32b, floats, 8, 7);
    check_span(s.vocab, 5 * 19456 + 2 * 18432, 17920); /* the last unit is half */
    s = shard_make(&qwen_32b, floats, 40, 12);         /* each key head on five ranks */
    ck_assert_int_eq(s.heads, 1);
    ck_assert_int_eq(s.kv_heads, 1);
    check_span(s.kv, 2 * 128, 128);
    s = shard_make(&qwen_32b, k_quants, 4, 1);
    check_span(s.ff, 27 * 256, 27 * 256);
    s = shard_make(&qwen_72b, q8, 8, 3); /* 924 blocks of 32: four ranks hold 116, four 115 */
    check_span(s.ff, 3 * 3712, 3712);
    s = shard_make(&qwen_72b, q8, 8, 7);
    check_span(s.ff, 4 * 3712 + 3 * 3680, 3680);
    s = shard_make(&qwen_72b, floats, 1, 0);
    check_span(s.vocab, 0, 152064);
    check_span(s.kv, 0, 1024);
}
END_TEST

/* The ranks' shares of every rule make up the whole, once or (key heads) equally often. */
START_TEST(shares_cover)
{
    static const int worlds[] = {1, 2, 4, 8, 16, 32, 64};
    for (size_t k = 0; k < sizeof worlds / sizeof *worlds; k++)
        for (const rule *r = arch_qwen2.rules; r->kind != RULE_END; r++) {
            int64_t rows = 0, cols = 0, all = dim_value(&qwen_72b, r->shape[0]);
            int world = worlds[k];
            for (int i = 0; i < world; i++) {
                shard s = shard_make(&qwen_72b, q8, world, i);
                shard_span y, x;
                shard_cut(&s, &qwen_72b, r, &y, &x);
                ck_assert(y.n > 0 && x.n > 0 && y.at >= 0 && y.at + y.n <= all);
                if (r->cut == SPLIT_OUT || r->cut == SPLIT_HEADS) ck_assert_int_eq(y.at, rows);
                if (r->cut == SPLIT_IN) ck_assert_int_eq(x.at, cols);
                if (r->cut == SPLIT_IN) ck_assert_int_eq(x.at % 32, 0);
                rows += y.n;
                cols += x.n;
            }
            int64_t times = r->cut == SPLIT_KV_HEADS ? world > 8 ? world / 8 : 1 : 1;
            if (r->cut == SPLIT_NONE || r->cut == SPLIT_IN) times = world;
            ck_assert_int_eq(rows, times * all);
            if (r->cut == SPLIT_IN) ck_assert_int_eq(cols, dim_value(&qwen_72b, r->shape[1]));
        }
}
END_TEST

static const struct {
    const model_config *c;
    const shard_units *u;
    int world;
    const char *msg;
} refusals[] = {
    {&qwen_32b, &floats, 3,
     "--tensor-parallel-size 3: 40 attention heads cannot be divided evenly; this model allows 1, "
     "2, 4, 8, 40"},
    {&qwen_32b, &floats, 5,
     "--tensor-parallel-size 5: 8 key heads can be neither divided evenly nor held by equally many "
     "ranks each; this model allows 1, 2, 4, 8, 40"},
    {&qwen_32b, &k_quants, 8,
     "--tensor-parallel-size 8: 5 heads of 128 a rank are not whole blocks of 256, in which o_proj "
     "is stored; this model allows 1, 2, 4"},
    {&qwen_72b, &floats, 65, "--tensor-parallel-size 65: 1 to 64 ranks are supported"},
};

START_TEST(refused)
{
    err e = {0};
    ck_assert_int_lt(shard_check(refusals[_i].c, *refusals[_i].u, refusals[_i].world, &e), 0);
    ck_assert_str_eq(e.msg, refusals[_i].msg);
}
END_TEST

/* ---- a random checkpoint wide enough for eight ranks and for blocks of 256 ---------------------
 */

enum { HIDDEN = 256, HEADS = 8, KV = 2, DIM = 64, FF = 768, VOCAB = 4300, LAYERS = 2 };

static float draw(uint64_t *s)
{
    float sum = 0;
    for (int k = 0; k < 4; k++) {
        *s = *s * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*s >> 40) / (float)(1 << 24) - 0.5f;
    }
    return sum * 1.7f;
}

static void add_tensor(buf *head, buf *data, const char *name, int rows, int cols, uint64_t *seed)
{
    bool norm = strstr(name, "norm") != NULL;
    size_t from = data->len;
    for (int i = 0; i < rows * cols; i++) {
        float v = draw(seed), x = norm ? 1 + v / 8 : rows == 1 ? v / 4 : v / sqrtf((float)cols);
        buf_put(data, &x, sizeof x);
    }
    buf_printf(head, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", head->len > 1 ? "," : "", name);
    if (rows > 1) buf_printf(head, "%d,", rows);
    buf_printf(head, "%d],\"data_offsets\":[%zu,%zu]}", cols, from, data->len);
}

static void add_layer(buf *head, buf *data, int i, uint64_t *seed)
{
    static const struct {
        const char *name;
        int rows, cols;
    } part[] = {{"input_layernorm.weight", 1, HIDDEN},
                {"self_attn.q_proj.weight", HEADS * DIM, HIDDEN},
                {"self_attn.q_proj.bias", 1, HEADS * DIM},
                {"self_attn.k_proj.weight", KV * DIM, HIDDEN},
                {"self_attn.k_proj.bias", 1, KV * DIM},
                {"self_attn.v_proj.weight", KV * DIM, HIDDEN},
                {"self_attn.v_proj.bias", 1, KV * DIM},
                {"self_attn.o_proj.weight", HIDDEN, HEADS * DIM},
                {"post_attention_layernorm.weight", 1, HIDDEN},
                {"mlp.gate_proj.weight", FF, HIDDEN},
                {"mlp.up_proj.weight", FF, HIDDEN},
                {"mlp.down_proj.weight", HIDDEN, FF}};
    for (size_t k = 0; k < sizeof part / sizeof *part; k++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%d.%s", i, part[k].name);
        add_tensor(head, data, name, part[k].rows, part[k].cols, seed);
    }
}

static char wide[PATH_MAX]; /* its directory */

static void write_file(const char *name, const void *v, size_t n)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", wide, name);
    FILE *f = fopen(path, "wb");
    ck_assert(f && fwrite(v, 1, n, f) == n && !fclose(f));
}

static void make_wide(void)
{
    buf head = {0}, data = {0}, file = {0}, config = {0};
    uint64_t seed = 1;
    temp_dir(wide);
    buf_printf(&config,
               "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\","
               "\"hidden_size\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,"
               "\"intermediate_size\":%d,\"vocab_size\":%d,\"num_hidden_layers\":%d,"
               "\"max_position_embeddings\":2048,\"rms_norm_eps\":1e-6,\"rope_theta\":10000,"
               "\"tie_word_embeddings\":true,\"head_dim\":%d,\"hidden_act\":\"silu\"}",
               HIDDEN, HEADS, KV, FF, VOCAB, LAYERS, DIM);
    write_file("config.json", config.v, config.len);
    buf_putc(&head, '{');
    add_tensor(&head, &data, "model.embed_tokens.weight", VOCAB, HIDDEN, &seed);
    add_tensor(&head, &data, "model.norm.weight", 1, HIDDEN, &seed);
    for (int i = 0; i < LAYERS; i++) add_layer(&head, &data, i, &seed);
    buf_putc(&head, '}');
    while (head.len % 8) buf_putc(&head, ' ');
    uint64_t n = head.len;
    buf_put(&file, &n, sizeof n);
    buf_put(&file, head.v, head.len);
    buf_put(&file, data.v, data.len);
    write_file("model.safetensors", file.v, file.len);
    buf_clear(&config);
    buf_clear(&head);
    buf_clear(&data);
    buf_clear(&file);
}

static void remove_wide(void)
{
    temp_remove(wide);
}

/* ---- logits ------------------------------------------------------------------------------------
 */

/* NULL: the wide one. */
static const struct {
    const char *name;
    int world;
} cases[] = {{"qwen2-gqa7", 7}, {"qwen2-untied", 2}, {"qwen3", 2}, {"qwen3", 4},
             {"qwen3-bias", 2}, {NULL, 2},           {NULL, 4},    {NULL, 8}};
enum { N_CASES = sizeof cases / sizeof *cases };

static void path_of(const char *name, char *path)
{
    if (name) snprintf(path, PATH_MAX, DATA "%s", name);
    else snprintf(path, PATH_MAX, "%s", wide);
}

static void random_tokens(int32_t *tok, int n, int vocab, uint32_t seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        tok[i] = (int32_t)((seed >> 8) % (uint32_t)vocab);
    }
}

/* The same bits in any chunks, again, and in company: see test_model.c. */
static void check_bits(rig *g, const int32_t *tok, int n, const float *all)
{
    size_t row = (size_t)g->vocab, bytes = (size_t)n * row * sizeof(float);
    float *other = malloc(bytes), *mixed = malloc(RIG_SEQS * row * sizeof(float));
    static const int chunks[] = {1, 7, 1000};
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        rig_all(g, tok, n, chunks[k], 1, other);
        ck_assert_msg(!memcmp(all, other, bytes), "chunks of %d differ", chunks[k]);
    }
    rig_all(g, tok, n / 2, n, 0, other);
    int32_t stranger[RIG_SEQS][64];
    for (int i = 1; i < RIG_SEQS; i++) random_tokens(stranger[i], 64, g->vocab, (uint32_t)i);
    for (int at = n / 2, turn = 0; at < n && turn < 9; at++, turn++) {
        rig_seq s[RIG_SEQS] = {{tok, at, 1, 0, 0}};
        for (int i = 1; i < RIG_SEQS; i++) s[i] = (rig_seq){stranger[i], turn * i * 2, i * 2, i, 0};
        rig_step(g, s, RIG_SEQS, false, mixed);
        ck_assert_msg(!memcmp(mixed, all + (size_t)at * row, row * sizeof(float)),
                      "position %d differs in company", at);
    }
    free(other);
    free(mixed);
}

START_TEST(logits)
{
    enum { N = 60 };
    if (quick_skips(_i, 3)) return;
    char path[PATH_MAX];
    int world = cases[_i % N_CASES].world;
    const backend_options *bo = _i / N_CASES ? &ref : &cpu;
    int32_t tok[N];
    path_of(cases[_i % N_CASES].name, path);
    rig one = rig_open(path, bo, KV_F32, 128), g = tp_open(path, bo, KV_F32, 128, world);
    size_t row = (size_t)one.vocab;
    float *want = malloc(N * row * sizeof *want), *got = malloc(N * row * sizeof *got);
    double worst = 0;
    random_tokens(tok, N, one.vocab, 7);
    rig_all(&one, tok, N, N, 0, want);
    rig_all(&g, tok, N, N, 0, got);
    for (int i = 0; i < N; i++) {
        double bad = row_error(got + (size_t)i * row, want + (size_t)i * row, one.vocab);
        worst = bad > worst ? bad : worst;
    }
    ck_assert_msg(worst <= 1e-5, "%s over %d ranks on %s: relative error %g", path, world,
                  one.be->op->name, worst);
    printf("%s over %d on %s: relative error %.2g\n", path, world, one.be->op->name, worst);
    if (_i < N_CASES) check_bits(&g, tok, N, got);
    free(want);
    free(got);
    rig_close(&one);
    tp_close(&g);
}
END_TEST

/* Greedy ids of the recorded cases. */
START_TEST(goldens)
{
    if (quick_skips(_i, 3)) return;
    char dir[PATH_MAX], file[PATH_MAX + 32];
    buf text = {0};
    err e;
    const json *root;
    path_of(cases[_i].name, dir);
    snprintf(file, sizeof file, "%s/golden.json", dir);
    ck_assert(!file_read(file, 1 << 20, &text, &e));
    json_doc *doc = json_parse(text.v, text.len, NULL, &root, &e);
    int n_checked = 0;
    for (const json *j = json_get(root, "cases")->child; j; j = j->next) {
        if (strcmp(json_get(j, "config")->str, "config.json")) continue;
        int32_t tok[RIG_MAX_TOK];
        int n = 0, n_prompt;
        int64_t v, ctx;
        for (const json *k = json_get(j, "prompt")->child; k; k = k->next, n++)
            tok[n] = json_int(k, &v) ? (int32_t)v : -1;
        n_prompt = n;
        for (const json *k = json_get(j, "greedy")->child; k; k = k->next, n++)
            tok[n] = json_int(k, &v) ? (int32_t)v : -1;
        ck_assert(json_int(json_get(j, "ctx"), &ctx));
        if (n == n_prompt) continue;
        rig g = tp_open(dir, &cpu, KV_F32, ctx, cases[_i].world);
        float *out = malloc((size_t)n * (size_t)g.vocab * sizeof *out);
        rig_all(&g, tok, n, n, 0, out);
        for (int i = n_prompt; i < n; i++, n_checked++)
            ck_assert_int_eq(argmax(out + (size_t)(i - 1) * (size_t)g.vocab, g.vocab), tok[i]);
        free(out);
        tp_close(&g);
    }
    ck_assert_int_gt(n_checked, 0);
    json_free(doc);
    buf_clear(&text);
}
END_TEST

/* ---- quantised ---------------------------------------------------------------------------------
 */

/* On ref, which rounds no activations, ranks only change the order of sums.  On cpu a sum that
 * differs in its last bit may turn the rounding of an 8-bit activation, and that others: then the
 * result is as far from ref as with one rank, in another direction. */
static const struct {
    const char *type;
    int world;
    bool on_ref;
} quantised[] = {{"Q4_K_M", 2, true}, {"Q8_0", 8, false}, {"Q4_0", 4, false}};

enum { Q_TOKENS = 40 };

static float *all_logits(rig *g, const int32_t *tok)
{
    float *out = malloc(sizeof *out * Q_TOKENS * (size_t)g->vocab);
    rig_all(g, tok, Q_TOKENS, Q_TOKENS, 0, out);
    return out;
}

static double worst_row(const float *got, const float *want, int vocab)
{
    double worst = 0;
    for (size_t i = 0; i < Q_TOKENS; i++)
        worst = fmax(worst, row_error(got + i * (size_t)vocab, want + i * (size_t)vocab, vocab));
    return worst;
}

START_TEST(cut_at_blocks)
{
    if (quick_skips(_i, 2)) return;
    char path[PATH_MAX + 32];
    int32_t tok[Q_TOKENS];
    err e = {0};
    int world = quantised[_i].world;
    snprintf(path, sizeof path, "%s/%s.gguf", wide, quantised[_i].type);
    ck_assert_msg(!tool_quantize(wide, path, quantised[_i].type, 2, NULL, NULL, &e), "%s", e.msg);
    random_tokens(tok, Q_TOKENS, VOCAB, 3);
    rig r = rig_open(path, &ref, KV_F32, 64), one = rig_open(path, &cpu, KV_F32, 64);
    rig g = tp_open(path, &cpu, KV_F32, 64, world);
    float *exact = all_logits(&r, tok), *alone = all_logits(&one, tok), *got = all_logits(&g, tok);
    double noise = worst_row(alone, exact, VOCAB), error = worst_row(got, exact, VOCAB);
    printf("%s on cpu: error %.2g alone, %.2g over %d ranks\n", quantised[_i].type, noise, error,
           world);
    ck_assert_msg(error <= 1.5 * noise, "%s: %g, alone %g", quantised[_i].type, error, noise);
    check_bits(&g, tok, Q_TOKENS, got);
    tp_close(&g);
    if (quantised[_i].on_ref) {
        g = tp_open(path, &ref, KV_F32, 64, world);
        float *cut = all_logits(&g, tok);
        ck_assert(worst_row(cut, exact, VOCAB) <= 1e-5);
        free(cut);
        tp_close(&g);
    }
    free(exact);
    free(alone);
    free(got);
    rig_close(&one);
    rig_close(&r);
}
END_TEST

/* ---- the engine --------------------------------------------------------------------------------
 */

static engine_options options_for(const char *path, int tp)
{
    return (engine_options){.model_path = path,
                            .device = "cpu",
                            .cpu_isa = "auto",
                            .kv_dtype = "f32",
                            .threads = 2,
                            .tensor_parallel = tp,
                            .max_model_len = 256,
                            .max_num_seqs = 4,
                            .prefix_caching = true,
                            .generation_config = true,
                            .allow_no_template = true};
}

static engine *open_engine(const engine_options *o)
{
    err e = {0};
    engine *g = engine_open(o, &e);
    ck_assert_msg(g && !engine_load(g, &e), "%s", e.msg);
    return g;
}

static request_spec ask(const engine *g, int32_t *prompt, int n, float temperature)
{
    random_tokens(prompt, n, engine_info(g)->n_vocab, 77);
    request_spec s = {
        .prompt = prompt, .n_prompt = n, .n = 1, .s = sampling_default(g), .cache_prompt = true};
    s.s.temperature = temperature;
    s.s.seed = 5;
    s.s.max_tokens = 30;
    s.s.ignore_eos = true;
    s.s.n_logprobs = 3;
    return s;
}

/* Greedy ids are those of one rank and logprobs next to theirs; a second run hits the prefix cache
 * and repeats the first bit for bit; drawn rows need the whole logits and repeat, too. */
START_TEST(engine_over_ranks)
{
    static const int worlds[] = {1, 2, 4, 8};
    answer first = {0};
    uint64_t print[4];
    for (int k = 0; k < 4; k++) {
        int32_t prompt[100];
        engine_options o = options_for(wide, worlds[k]);
        engine *g = open_engine(&o);
        print[k] = engine_info(g)->fingerprint;
        ck_assert_int_eq(engine_info(g)->world, worlds[k]);
        client c[4];
        for (int i = 0; i < 4; i++) client_run(&c[i], g, ask(g, prompt, 100, i < 2 ? 0 : 0.9f));
        for (int i = 0; i < 4; i += 2) {
            ck_assert_int_eq(c[i].a[0].n_tok, 30);
            ck_assert_int_eq(memcmp(c[i].a[0].tok, c[i + 1].a[0].tok, 30 * sizeof(token_info)), 0);
        }
        ck_assert_int_gt(c[1].st.n_cached, 0);
        for (int i = 0; k && i < 30; i++) {
            ck_assert_int_eq(c[0].a[0].tok[i].id, first.tok[i].id);
            ck_assert_float_eq_tol(c[0].a[0].tok[i].logprob, first.tok[i].logprob, 1e-4f);
            ck_assert_int_eq(c[0].a[0].tok[i].rank, first.tok[i].rank);
        }
        if (!k) {
            first.tok = malloc(30 * sizeof *first.tok);
            memcpy(first.tok, c[0].a[0].tok, 30 * sizeof *first.tok);
        }
        for (int i = 0; i < 4; i++) client_clear(&c[i]);
        engine_close(g);
    }
    ck_assert(print[0] != print[1] && print[1] != print[2]);
    free(first.tok);
}
END_TEST

START_TEST(engine_refuses)
{
    err e = {0};
    engine_options o = options_for("models/demo", 3);
    ck_assert_ptr_null(engine_open(&o, &e));
    ck_assert_str_eq(e.msg, "--tensor-parallel-size 3: 4 attention heads cannot be divided evenly; "
                            "this model allows 1, 2, 4");
    o.tensor_parallel = 2;
    o.kv_memory = 1ull << 50;
    ck_assert_ptr_null(engine_open(&o, &e));
    ck_assert(strstr(e.msg, "--kv-cache-memory"));
}
END_TEST

/* ---- faults: rank 1 is ours and misbehaves in its sum number `when` ----------------------------
 */

typedef enum { HANGS, FAULTS, N_WAYS } way;

static struct {
    way how;
    _Atomic int n_sums, n_sums_0, when; /* of rank 1, of rank 0 */
    _Atomic bool let_go;
    const comm_ops *real;
} bad;

static void bad_all_reduce(comm *c, backend *be, void *x, size_t n, act_type type)
{
    if (++bad.n_sums == bad.when) {
        if (bad.how == FAULTS) k_fault(be, "all_reduce", "the cable is loose");
        while (bad.how == HANGS && !bad.let_go) usleep(10000);
    }
    bad.real->all_reduce(c, be, x, n, type);
}

/* Rank 0 waits for as long as the test lasts, but for that sum of a rank that hangs. */
static void patient_all_reduce(comm *c, backend *be, void *x, size_t n, act_type type)
{
    if (++bad.n_sums_0 == bad.when && bad.how == HANGS) c->timeout_s = 0.3;
    bad.real->all_reduce(c, be, x, n, type);
}

static void *bad_rank(void *arg)
{
    comm *c = arg;
    err e = {0};
    engine_options o = options_for(wide, 1);
    engine_follow(&o, c, &e);
    return NULL;
}

START_TEST(a_rank_fails)
{
    comm *c[2];
    pthread_t t;
    err e = {0};
    int32_t prompt[100];
    bad.how = (way)_i;
    ck_assert_int_eq(comm_threads_open(2, 100000, 0, c, &e), 0);
    comm_ops ops = *c[1]->op, patient = ops;
    bad.real = c[1]->op;
    bad.when = 200;
    ops.all_reduce = bad_all_reduce;
    patient.all_reduce = patient_all_reduce;
    c[1]->op = &ops;
    c[0]->op = &patient;
    ck_assert_int_eq(pthread_create(&t, NULL, bad_rank, c[1]), 0);
    engine_options o = options_for(wide, 2);
    o.ranks = c[0];
    engine *g = open_engine(&o);
    client q;
    request_spec s = ask(g, prompt, 100, 0);
    s.s.max_tokens = 150;
    client_run(&q, g, s);
    ck_assert_int_eq(q.a[0].finish, FINISH_ERROR);
    ck_assert_int_eq(q.a[0].error, ERR_DEVICE);
    ck_assert_int_gt(q.a[0].n_tok, 5); /* it had run for a while */
    ck_assert_int_eq(engine_status(g), ENGINE_FAILED);
    const char *why = engine_fault(g);
    ck_assert_msg(strstr(why, "rank 1"), "%s", why);
    if (_i == FAULTS) ck_assert_msg(strstr(why, "the cable is loose"), "%s", why);
    else ck_assert_msg(strstr(why, "did not come to all_reduce within 0.3 s"), "%s", why);
    request *none;
    ck_assert_int_eq(engine_submit(g, &s, &none, NULL, &e), ERR_DEVICE);
    client_clear(&q);
    engine_close(g); /* waits for nobody */
    bad.let_go = true;
    pthread_join(t, NULL);
}
END_TEST

/* A rank whose model is another one stops the load with its reason. */
static void *other_model(void *arg)
{
    err e = {0};
    engine_options o = options_for("models/demo", 1);
    ck_assert_int_eq(engine_follow(&o, arg, &e), ERR_INVALID);
    return NULL;
}

START_TEST(a_rank_has_another_model)
{
    comm *c[2];
    pthread_t t;
    err e = {0};
    ck_assert_int_eq(comm_threads_open(2, 100000, 0, c, &e), 0);
    ck_assert_int_eq(pthread_create(&t, NULL, other_model, c[1]), 0);
    engine_options o = options_for(wide, 2);
    o.ranks = c[0];
    engine *g = engine_open(&o, &e);
    ck_assert_msg(g != NULL, "%s", e.msg);
    ck_assert_int_eq(engine_load(g, &e), ERR_DEVICE);
    ck_assert_msg(strstr(e.msg, "rank 1: the model here is not the one"), "%s", e.msg);
    engine_close(g);
    pthread_join(t, NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tp");
    TCase *t = tcase_create("tp");
    tcase_set_timeout(t, 60);
    tcase_add_unchecked_fixture(t, make_wide, remove_wide);
    tcase_add_test(t, figures);
    tcase_add_test(t, shares_cover);
    tcase_add_loop_test(t, refused, 0, sizeof refusals / sizeof *refusals);
    tcase_add_loop_test(t, logits, 0, 2 * N_CASES - 2); /* ref is slow: wide at 2 only */
    tcase_add_loop_test(t, goldens, 0, N_CASES - 3);
    tcase_add_loop_test(t, cut_at_blocks, 0, sizeof quantised / sizeof *quantised);
    tcase_add_test(t, engine_over_ranks);
    tcase_add_test(t, engine_refuses);
    tcase_add_loop_test(t, a_rank_fails, 0, N_WAYS);
    tcase_add_test(t, a_rank_has_another_model);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
