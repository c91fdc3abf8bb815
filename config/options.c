/* options.c - reads options from the command line, the environment and a file by the rows of
 * options_table.c.
 * Owns: nothing after returning; the struct owns its strings.
 * Refuses: unknown names, values outside what a row accepts, options of later stages.
 * Thread: main, before others start. */
#include "config/options.h"

#include "base/dtype.h"
#include "base/json.h"
#include "config/device.h"
#include "config/options_table.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

extern char **environ;

enum { MAX_CONFIG = 1 << 20, NAME_CAP = 64 };

/* Where a value came from: a later source replaces the lists of an earlier one. */
typedef enum { FROM_DEFAULT, FROM_FILE, FROM_ENV, FROM_LINE } source;

typedef struct {
    options *o;
    command cmd;
    source *seen; /* [option_n_rows] source of each row's value */
    err *e;
} setter;

static void *field_of(options *o, const option_row *r)
{
    return (char *)o + r->offset;
}

static bool is_list(const option_row *r)
{
    return r->kind == OPT_LIST || r->kind == OPT_REPEAT;
}

bool options_parse_bytes(const char *text, uint64_t *out)
{
    static const char units[] = "kmgt";
    char *end;
    if (!isdigit((unsigned char)*text)) return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno) return false;
    if (*end) {
        const char *unit = strchr(units, tolower((unsigned char)*end++));
        if (!unit) return false;
        if (*end == 'i') end++; /* 8Gi, 8GiB: all units are powers of 1024 */
        if (*end == 'b' || *end == 'B') end++;
        for (long i = unit - units; i >= 0; i--)
            if (__builtin_mul_overflow(v, 1024ull, &v)) return false;
    }
    *out = v;
    return !*end;
}

/* ---- values ---- */

/* One sentence about what a row takes, with the offending text. */
static int bad_value(const setter *s, const option_row *r, const char *shown, const char *text)
{
    char what[200];
    bool whole = r->kind == OPT_INT, automatic = r->def && !strcmp(r->def, "auto");
    switch (r->kind) {
    case OPT_BOOL: snprintf(what, sizeof what, "true or false"); break;
    case OPT_INT:
    case OPT_NUM:
        snprintf(what, sizeof what, "a %snumber from %.0f to %.0f%s", whole ? "whole " : "", r->lo,
                 r->hi, automatic ? " or auto" : "");
        break;
    case OPT_BYTES: snprintf(what, sizeof what, "a size such as 8G, 512M or 1048576"); break;
    case OPT_CHOICE: snprintf(what, sizeof what, "one of %s", r->accept); break;
    case OPT_JSON: snprintf(what, sizeof what, "a JSON object"); break;
    case OPT_LIST: snprintf(what, sizeof what, "words separated by commas"); break;
    default: snprintf(what, sizeof what, "text"); break;
    }
    return err_set(s->e, ERR_INVALID, "%s takes %s, got '%.64s'", shown, what, text);
}

static int set_string(const setter *s, char **out, const char *text, size_t n)
{
    char *copy = strndup(text, n);
    if (!copy) return err_set(s->e, ERR_NOMEM, "out of memory");
    free(*out);
    *out = copy;
    return 0;
}

static int list_push(const setter *s, str_list *l, const char *text, size_t n)
{
    char **v = realloc(l->v, ((size_t)l->n + 1) * sizeof *v);
    if (!v) return err_set(s->e, ERR_NOMEM, "out of memory");
    l->v = v;
    v[l->n] = NULL;
    int rc = set_string(s, &v[l->n], text, n);
    if (!rc) l->n++;
    return rc;
}

static void list_clear(str_list *l)
{
    for (int i = 0; i < l->n; i++) free(l->v[i]);
    free(l->v);
    *l = (str_list){0};
}

/* "a, b" -> two items; empty ones are dropped. */
static int push_items(const setter *s, str_list *l, const char *text)
{
    int rc = 0;
    for (const char *p = text; *p && !rc;) {
        size_t n = strcspn(p, ",");
        const char *item = p;
        size_t m = n;
        while (m && item[0] == ' ') item++, m--;
        while (m && item[m - 1] == ' ') m--;
        if (m) rc = list_push(s, l, item, m);
        p += n + (p[n] == ',');
    }
    return rc;
}

static int set_choice(const setter *s, const option_row *r, const char *shown, const char *text)
{
    size_t n = strlen(text);
    for (const char *p = r->accept; *p;) {
        size_t m = strcspn(p, "|");
        if (m == n && !strncasecmp(p, text, n)) return set_string(s, field_of(s->o, r), p, m);
        p += m + (p[m] == '|');
    }
    return bad_value(s, r, shown, text);
}

static int set_json(const setter *s, const option_row *r, const char *shown, const char *text)
{
    const json *root;
    json_limits limits = {.max_depth = 32, .max_values = 10000};
    json_doc *d = json_parse(text, strlen(text), &limits, &root, s->e);
    if (!d) return err_prefix(s->e, "%s takes a JSON object", shown);
    bool object = root->type == JSON_OBJECT;
    json_free(d);
    if (!object) return bad_value(s, r, shown, text);
    return set_string(s, field_of(s->o, r), text, strlen(text));
}

static bool parse_bool(const char *text, bool *v)
{
    static const char *const yes[] = {"true", "1", "yes", "on"}, *const no[] = {"false", "0", "no",
                                                                                "off"};
    for (size_t i = 0; i < 4; i++) {
        if (!strcasecmp(text, yes[i])) *v = true;
        else if (!strcasecmp(text, no[i])) *v = false;
        else continue;
        return true;
    }
    return false;
}

static bool parse_number(const option_row *r, const char *text, void *field)
{
    char *end;
    bool automatic = r->def && !strcmp(r->def, "auto") && !strcasecmp(text, "auto");
    errno = 0;
    if (r->kind == OPT_INT) {
        long long v = automatic ? 0 : strtoll(text, &end, 10);
        if (!automatic && (errno || end == text || *end)) return false;
        if ((double)v < r->lo || (double)v > r->hi) return false;
        *(int64_t *)field = v;
        return true;
    }
    double v = strtod(text, &end);
    if (errno || end == text || *end || !isfinite(v) || v < r->lo || v > r->hi) return false;
    *(double *)field = v;
    return true;
}

/* Sets the row's field from text; `shown` names the option as its user wrote it. */
static int set_value(const setter *s, const option_row *r, source from, const char *shown,
                     const char *text)
{
    void *field = field_of(s->o, r);
    source *seen = &s->seen[r - option_rows];
    if (is_list(r) && *seen != from) list_clear(field);
    *seen = from;
    switch (r->kind) {
    case OPT_BOOL: return parse_bool(text, field) ? 0 : bad_value(s, r, shown, text);
    case OPT_INT:
    case OPT_NUM: return parse_number(r, text, field) ? 0 : bad_value(s, r, shown, text);
    case OPT_BYTES:
        if (r->def && !strcmp(r->def, "auto") && !strcasecmp(text, "auto")) text = "0";
        return options_parse_bytes(text, field) ? 0 : bad_value(s, r, shown, text);
    case OPT_STR: return set_string(s, field, text, strlen(text));
    case OPT_CHOICE: return set_choice(s, r, shown, text);
    case OPT_JSON: return set_json(s, r, shown, text);
    case OPT_LIST:
        if (!text[strspn(text, ", ")]) return bad_value(s, r, shown, text);
        return push_items(s, field, text);
    case OPT_REPEAT: return list_push(s, field, text, strlen(text));
    }
    return 0;
}

/* ---- names ---- */

/* Row of a name without dashes in front; *negated: the name is that of a bool's opposite. */
static const option_row *row_of(const char *name, bool *negated)
{
    *negated = false;
    for (int i = 0; i < option_n_rows; i++)
        if (!strcmp(option_rows[i].name, name)) return &option_rows[i];
    *negated = true;
    for (int i = 0; i < option_n_rows; i++) {
        const option_row *r = &option_rows[i];
        bool no = !strncmp(r->name, "no-", 3), says_no = !strncmp(name, "no-", 3);
        if (r->kind != OPT_BOOL || no == says_no) continue;
        if (!strcmp(no ? r->name + 3 : r->name, no ? name : name + 3)) return r;
    }
    return NULL;
}

/* The same for a word of the command line of n bytes, dashes and all. */
static const option_row *row_of_word(const char *word, size_t n, bool *negated)
{
    char name[NAME_CAP];
    *negated = false;
    for (int i = 0; i < option_n_rows; i++)
        for (int j = 0; j < 4 && option_rows[i].alias[j]; j++)
            if (strlen(option_rows[i].alias[j]) == n && !memcmp(option_rows[i].alias[j], word, n))
                return &option_rows[i];
    if (n < 3 || word[0] != '-' || word[1] != '-' || n - 2 >= sizeof name) return NULL;
    snprintf(name, sizeof name, "%.*s", (int)(n - 2), word + 2);
    return row_of(name, negated);
}

/* Message for a name that is no option of ours today. */
static int unknown(const setter *s, const char *shown, const char *name)
{
    for (int i = 0; i < option_n_laters; i++)
        if (!strcmp(option_laters[i].name, name))
            return err_set(s->e, ERR_UNSUPPORTED, "%s is not supported yet (%s)", shown,
                           option_laters[i].feature);
    return err_set(s->e, ERR_INVALID, "unknown option %s", shown);
}

/* "max_model_len", "MAX_MODEL_LEN" -> "max-model-len"; false if it is too long for any option. */
static bool dashed(const char *from, char name[NAME_CAP])
{
    size_t i = 0;
    for (; i < NAME_CAP - 1 && from[i]; i++)
        name[i] = from[i] == '_' ? '-' : (char)tolower((unsigned char)from[i]);
    name[i] = 0;
    return !from[i];
}

static int set_named(const setter *s, const option_row *r, bool negated, source from,
                     const char *shown, const char *text)
{
    bool v;
    if (!negated) return set_value(s, r, from, shown, text);
    if (!parse_bool(text, &v)) return bad_value(s, r, shown, text);
    return set_value(s, r, from, shown, v ? "false" : "true");
}

/* ---- sources ---- */

static int apply_defaults(const setter *s)
{
    int rc = 0;
    for (int i = 0; i < option_n_rows && !rc; i++) {
        const option_row *r = &option_rows[i];
        if (r->def) rc = set_value(s, r, FROM_DEFAULT, r->name, r->def);
    }
    return rc;
}

static int warn_unknown(const setter *s, const char *shown)
{
    char text[NAME_CAP + 48];
    snprintf(text, sizeof text, "environment: %s names no option", shown);
    return list_push(s, &s->o->warnings, text, strlen(text));
}

static int apply_env(const setter *s)
{
    static const char head[] = "QUERN_";
    char name[NAME_CAP], shown[NAME_CAP + 8];
    bool negated;
    for (char **v = environ; v && *v; v++) {
        const char *eq = strchr(*v, '=');
        if (strncmp(*v, head, sizeof head - 1) != 0 || !eq || !eq[1]) continue;
        snprintf(shown, sizeof shown, "%.*s", (int)(eq - *v), *v);
        bool fits = dashed(shown + sizeof head - 1, name);
        const option_row *r = fits ? row_of(name, &negated) : NULL;
        int rc = 0;
        if (r) {
            if (!strcmp(name, "config") || !strcmp(name, "help")) continue;
            if (r->commands & s->cmd) rc = set_named(s, r, negated, FROM_ENV, shown, eq + 1);
        } else if (unknown(s, shown, name) == ERR_UNSUPPORTED) {
            rc = ERR_UNSUPPORTED;
        } else { /* the prefix is not ours alone: other programs may use it too */
            *s->e = (err){0};
            rc = warn_unknown(s, shown);
        }
        if (rc) return rc;
    }
    return 0;
}

/* One member of the --config file. */
static int apply_member(const setter *s, const option_row *r, bool negated, const char *shown,
                        const json *j)
{
    int64_t whole;
    buf text = {0};
    int rc = 0;
    switch (j->type) {
    case JSON_NULL: break;
    case JSON_TRUE:
    case JSON_FALSE:
        rc = r->kind == OPT_BOOL ? set_named(s, r, negated, FROM_FILE, shown,
                                             j->type == JSON_TRUE ? "true" : "false")
                                 : bad_value(s, r, shown, j->type == JSON_TRUE ? "true" : "false");
        break;
    case JSON_NUMBER:
        if (json_int(j, &whole)) buf_put_int(&text, whole);
        else buf_puts(&text, j->str);
        rc = r->kind == OPT_BOOL ? bad_value(s, r, shown, j->str)
                                 : set_named(s, r, negated, FROM_FILE, shown, buf_str(&text));
        break;
    case JSON_STRING: rc = set_named(s, r, negated, FROM_FILE, shown, j->str); break;
    case JSON_ARRAY:
        if (!is_list(r)) rc = bad_value(s, r, shown, "an array");
        for (const json *c = j->child; c && !rc; c = c->next)
            rc = c->type == JSON_STRING
                     ? set_value(s, r, FROM_FILE, shown, c->str)
                     : err_set(s->e, ERR_INVALID, "%s: every item must be a string", shown);
        break;
    case JSON_OBJECT:
        json_dump(j, &text);
        rc = r->kind == OPT_JSON ? set_value(s, r, FROM_FILE, shown, buf_str(&text))
                                 : bad_value(s, r, shown, "an object");
        break;
    }
    buf_clear(&text);
    return rc;
}

static int apply_file(const setter *s, const char *path)
{
    const json *root;
    json_limits limits = {.max_depth = 32, .max_values = 10000, .unique_keys = true};
    json_doc *d = json_read(path, MAX_CONFIG, &limits, &root, s->e);
    if (!d) return err_prefix(s->e, "--config");
    int rc = root->type == JSON_OBJECT
                 ? 0
                 : err_set(s->e, ERR_INVALID, "--config: '%s' is not a JSON object", path);
    for (const json *j = root->child; j && !rc; j = j->next) {
        char name[NAME_CAP], shown[NAME_CAP + 80];
        bool negated;
        bool fits = dashed(j->key, name);
        snprintf(shown, sizeof shown, "'%.*s' in the --config file", NAME_CAP - 1, j->key);
        const option_row *r = fits ? row_of(name, &negated) : NULL;
        if (!r || !strcmp(r->name, "config") || !strcmp(r->name, "help"))
            rc = unknown(s, shown, name);
        else if (r->commands & s->cmd) rc = apply_member(s, r, negated, shown, j);
    }
    json_free(d);
    return rc;
}

/* One option of the command line at argv[*i]; moves *i past its value. */
static int apply_word(const setter *s, int argc, char **argv, int *i)
{
    const char *word = argv[*i], *eq = word[1] == '-' ? strchr(word, '=') : NULL;
    size_t n = eq ? (size_t)(eq - word) : strlen(word);
    char shown[NAME_CAP];
    bool negated;
    snprintf(shown, sizeof shown, "%.*s", n < NAME_CAP - 1 ? (int)n : NAME_CAP - 1, word);
    const option_row *r = row_of_word(word, n, &negated);
    if (!r) return unknown(s, shown, n > 2 ? shown + 2 : shown);
    if (!(r->commands & s->cmd))
        return err_set(s->e, ERR_INVALID, "%s does nothing in this command", shown);
    if (r == &option_rows[0] && s->seen[0] == FROM_LINE)
        return err_set(s->e, ERR_INVALID, "%s: the model is given twice", shown);
    if (eq) return set_named(s, r, negated, FROM_LINE, shown, eq + 1);
    if (r->kind == OPT_BOOL) return set_named(s, r, negated, FROM_LINE, shown, "true");
    if (++*i == argc || !strncmp(argv[*i], "--", 2))
        return err_set(s->e, ERR_INVALID, "%s needs a value: %s %s", shown, shown, r->arg);
    return set_value(s, r, FROM_LINE, shown, argv[*i]);
}

/* The first positional argument is MODEL, unless --model named it. */
static int apply_positional(const setter *s, const char *word)
{
    if (s->seen[0] == FROM_LINE) return list_push(s, &s->o->args, word, strlen(word));
    return set_value(s, &option_rows[0], FROM_LINE, "MODEL", word);
}

/* The command line; only_config: nothing but --config, which must be known before the rest. */
static int apply_line(const setter *s, int argc, char **argv, bool only_config)
{
    bool plain = false, negated;
    int rc = 0;
    for (int i = 2; i < argc && !rc; i++) {
        const char *word = argv[i];
        if (!plain && !strcmp(word, "--")) {
            plain = true;
        } else if (!plain && word[0] == '-' && word[1]) {
            const option_row *r = row_of_word(word, strcspn(word, "="), &negated);
            if (!only_config) rc = apply_word(s, argc, argv, &i);
            else if (r && !strcmp(r->name, "config")) rc = apply_word(s, argc, argv, &i);
            else if (r && r->kind != OPT_BOOL && !strchr(word, '=')) i++;
        } else if (!only_config) {
            rc = apply_positional(s, word);
        }
    }
    int most = s->cmd == CMD_QUANTIZE ? 1 : 0;
    if (!rc && !only_config && s->o->args.n > most)
        rc = err_set(s->e, ERR_INVALID, "unexpected argument '%.64s'", s->o->args.v[most]);
    return rc;
}

/* What no build of today can do, said before anything is opened. */
static int check(const setter *s)
{
    options *o = s->o;
    device_choice device;
    int rc = device_parse(o->device, &device, s->e);
    if (!rc) rc = device_check_ranks(&device, (int)o->tensor_parallel_size, s->e);
    if (rc) return rc;
    for (char *c = o->device; *c; c++) *c = (char)tolower((unsigned char)*c);
    if (o->dummy_type && !o->dummy_weights)
        return err_set(s->e, ERR_INVALID, "--dummy-type does nothing without --dummy-weights");
    if (o->dummy_type && dtype_by_name(o->dummy_type) < 0)
        return err_set(s->e, ERR_INVALID,
                       "--dummy-type takes BF16, F16, F32 or one of GGUF's block types such as "
                       "Q8_0 or Q4_K, got '%.40s'",
                       o->dummy_type);
    if (!o->tls_cert != !o->tls_key)
        return err_set(s->e, ERR_INVALID, "--tls-cert and --tls-key need each other");
    if (o->sse_ping <= 0 && o->sse_ping != -1)
        return err_set(s->e, ERR_INVALID, "--sse-ping takes seconds above 0, or -1 for off, got %g",
                       o->sse_ping);
    if (!o->max_body) return err_set(s->e, ERR_INVALID, "--max-body 0 would refuse every request");
    if (o->max_body > o->max_body_total)
        return err_set(s->e, ERR_INVALID, "--max-body %llu is more than --max-body-total %llu",
                       (unsigned long long)o->max_body, (unsigned long long)o->max_body_total);
    if (!strcmp(o->cpu_isa, "ref")) return set_string(s, &o->device, "ref", 3);
    return 0;
}

int options_parse(options *o, command cmd, int argc, char **argv, err *e)
{
    err own = {0};
    *o = (options){0};
    setter s = {o, cmd, calloc((size_t)option_n_rows, sizeof *s.seen), e ? e : &own};
    if (!s.seen) return err_set(e, ERR_NOMEM, "out of memory");
    const char *env_config = getenv("QUERN_CONFIG");
    int rc = apply_defaults(&s);
    if (!rc) rc = apply_line(&s, argc, argv, true);
    if (!rc && !o->config && env_config && *env_config)
        rc = set_string(&s, &o->config, env_config, strlen(env_config));
    if (!rc && o->config) rc = apply_file(&s, o->config);
    if (!rc) rc = apply_env(&s);
    if (!rc) rc = apply_line(&s, argc, argv, false);
    if (!rc && !o->help) rc = check(&s);
    free(s.seen);
    return rc;
}

void options_free(options *o)
{
    for (int i = 0; i < option_n_rows; i++) {
        const option_row *r = &option_rows[i];
        if (is_list(r)) list_clear(field_of(o, r));
        else if (r->kind == OPT_STR || r->kind == OPT_CHOICE || r->kind == OPT_JSON)
            free(*(char **)field_of(o, r));
    }
    list_clear(&o->args);
    list_clear(&o->warnings);
    *o = (options){0};
}

/* ---- help ---- */

/* Appends text in lines of at most 100 columns, the second and later ones indented. */
static void wrap(buf *out, const char *text, size_t indent)
{
    size_t room = 100 - indent;
    while (strlen(text) > room) {
        size_t n = room;
        while (n && text[n] != ' ') n--;
        if (!n) n = strcspn(text, " "); /* a word wider than the column stays whole */
        if (!text[n]) break;
        buf_put(out, text, n);
        buf_printf(out, "\n%*s", (int)indent, "");
        text += n + 1;
    }
    buf_puts(out, text);
    buf_putc(out, '\n');
}

static void help_row(const option_row *r, buf *out)
{
    buf left = {0}, right = {0};
    buf_printf(&left, "  --%s%s%s", r->name, r->arg ? " " : "", r->arg ? r->arg : "");
    for (int i = 0; i < 4 && r->alias[i]; i++) buf_printf(&left, ", %s", r->alias[i]);
    buf_puts(&right, r->help);
    if (r->kind == OPT_CHOICE) buf_printf(&right, " [%s]", r->accept);
    if (r->def && !strstr(r->help, "auto:")) buf_printf(&right, " (default %s)", r->def);
    if (left.len < 34) buf_printf(&left, "%*s", (int)(34 - left.len), "");
    else buf_printf(&left, "\n%*s", 34, "");
    buf_puts(out, buf_str(&left));
    wrap(out, buf_str(&right), 34);
    buf_clear(&left);
    buf_clear(&right);
}

void options_help(command cmd, buf *out)
{
    static const struct {
        command cmd;
        const char *usage;
    } usages[] = {
        {CMD_SERVE, "serve [MODEL]"},       {CMD_CHAT, "chat [MODEL]"},
        {CMD_BENCH, "bench [MODEL]"},       {CMD_INSPECT, "inspect [MODEL]"},
        {CMD_TOKENIZE, "tokenize [MODEL]"}, {CMD_DETOKENIZE, "detokenize [MODEL]"},
        {CMD_RENDER, "render [MODEL]"},     {CMD_QUANTIZE, "quantize IN OUT.gguf --type TYPE"},
        {CMD_PARSE_OUTPUT, "parse-output"}, {CMD_GRAMMAR_CHECK, "grammar-check"},
    };
    const char *group = "";
    for (size_t i = 0; i < sizeof usages / sizeof usages[0]; i++)
        if (usages[i].cmd == cmd) buf_printf(out, "usage: quern %s [options]\n", usages[i].usage);
    for (int i = 0; i < option_n_rows; i++) {
        const option_row *r = &option_rows[i];
        if (!(r->commands & cmd)) continue;
        if (strcmp(group, r->group) != 0) buf_printf(out, "\n%s\n", r->group);
        group = r->group;
        help_row(r, out);
    }
    buf_puts(out, "\nEvery option is also a variable QUERN_NAME (--max-queue: QUERN_MAX_QUEUE) and "
                  "a member of the\n"
                  "--config file; the command line wins over the environment, and that over the "
                  "file.  Switches\n"
                  "take =true and =false, and --no-x undoes --x.\n");
}
