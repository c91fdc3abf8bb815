/* template_parse.c - statements to nodes, and the public life of a compiled template.
 * Owns the template's arena.  Refuses unknown tags, and tags that would read other files.
 * Thread: the compiler's; a finished template is const. */
#include "engine/text/template_ast.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NESTING = 200 };
enum { MAX_TEMPLATE = 4 << 20, MAX_COMPILED = 512 << 20 };

void tpl_syntax(parser *p, int line, const char *fmt, ...)
{
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    tpl_fail(&p->c, ERR_FORMAT, "line %d: %s", line, msg);
}

node *tpl_node_new(parser *p, node_kind k, int line)
{
    node *n = tpl_take0(&p->c, sizeof *n);
    n->kind = k;
    n->line = line;
    n->name = -1;
    n->height = 1;
    return n;
}

int tpl_name_id(parser *p, const char *s, size_t n)
{
    template *t = p->t;
    for (int i = 0; i < t->n_names; i++)
        if (tpl_is_name(t->names[i], s, n)) return i;
    if (t->n_names == t->cap_names) {
        int cap = t->cap_names ? t->cap_names * 2 : 32;
        const char **names = tpl_take(&p->c, (size_t)cap * sizeof *names);
        if (t->n_names) memcpy(names, t->names, (size_t)t->n_names * sizeof *names);
        t->names = names;
        t->cap_names = cap;
    }
    char *copy = arena_copy(&p->c.mem, s, n);
    if (!copy) tpl_fail(&p->c, ERR_NOMEM, "out of memory");
    t->names[t->n_names] = copy;
    return t->n_names++;
}

const char *tpl_token_words(const token *t, char out[80])
{
    static const char *const words[] = {[T_EOF] = "end of template",
                                        [T_DATA] = "template data / text",
                                        [T_BLOCK_BEGIN] = "begin of statement block",
                                        [T_BLOCK_END] = "end of statement block",
                                        [T_VAR_BEGIN] = "begin of print statement",
                                        [T_VAR_END] = "end of print statement",
                                        [T_STRING] = "string",
                                        [T_INT] = "integer",
                                        [T_FLOAT] = "float"};
    if ((size_t)t->type < sizeof words / sizeof *words && words[t->type])
        snprintf(out, 80, "'%s'", words[t->type]);
    else snprintf(out, 80, "'%.*s'", (int)(t->n < 60 ? t->n : 60), t->v);
    return out;
}

bool tpl_tok_is_name(const token *t, const char *word)
{
    return t->type == T_NAME && t->n == strlen(word) && !memcmp(t->v, word, t->n);
}

bool tpl_skip_name(parser *p, const char *word)
{
    if (!tpl_tok_is_name(cur(p), word)) return false;
    advance(p);
    return true;
}

bool tpl_skip(parser *p, token_type type)
{
    if (cur(p)->type != type) return false;
    advance(p);
    return true;
}

const token *tpl_expect(parser *p, token_type type, const char *words)
{
    const token *t = cur(p);
    char got[80];
    if (t->type == type) return advance(p);
    if (t->type == T_EOF) tpl_syntax(p, t->line, "unexpected end of template, expected %s.", words);
    tpl_syntax(p, t->line, "expected token %s, got %s", words, tpl_token_words(t, got));
}

void tpl_enter(parser *p, int line)
{
    if (++p->depth > MAX_NESTING)
        tpl_syntax(p, line, "nested more than %d levels deep", MAX_NESTING);
}

void tpl_leave(parser *p)
{
    p->depth--;
}

/* ---- statements ------------------------------------------------------------------------------ */

static node *parse_block(parser *p, const char *const *end);

/* The body behind a tag's head, up to one of the end words, whose name token is consumed; which
 * says which it was. */
static node *body(parser *p, const char *const *end, int *which)
{
    tpl_skip(p, T_COLON);
    tpl_expect(p, T_BLOCK_END, "end of statement block");
    node *n = parse_block(p, end);
    if (cur(p)->type == T_EOF)
        tpl_syntax(p, cur(p)->line,
                   "Unexpected end of template. Jinja was looking for the following tags: '%s'. "
                   "The innermost block that needs to be closed is '%s'.",
                   end[0], p->open_tag);
    const token *t = advance(p);
    if (which) {
        *which = 0;
        while (!tpl_tok_is_name(t, end[*which])) ++*which;
    }
    return n;
}

static node *body_until(parser *p, const char *end)
{
    const char *const words[] = {end, NULL};
    return body(p, words, NULL);
}

/* Height of a statement from its parts; body lists count too, since exec recurses into them. */
static node *closed_tree(parser *p, node *n)
{
    const node *kid[] = {n->a, n->b, n->c, n->d, n->e};
    for (size_t i = 0; i < sizeof kid / sizeof *kid; i++)
        for (const node *k = kid[i]; k; k = k->next)
            if (k->height >= n->height) n->height = k->height + 1;
    if (n->height > 2 * MAX_NESTING + 400) tpl_syntax(p, n->line, "nested too deeply");
    return n;
}

static node *parse_if(parser *p, int line)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node *top = NULL, **at = &top;
    for (int which = 0; which == 0; line = cur(p)->line) {
        node *n = tpl_node_new(p, N_IF, line);
        n->a = tpl_parse_tuple(p, 0, NULL);
        n->b = body(p, ends, &which);
        if (which == 1) n->c = body_until(p, "endif");
        *at = n;
        at = &n->c;
    }
    /* A chain of elif nests in c but is walked by a loop, so only its parts count. */
    for (const node *n = top; n;) {
        bool chain = n->c && n->c->kind == N_IF && !n->c->next;
        node parts = {.a = n->a, .b = n->b, .c = chain ? NULL : n->c, .line = n->line, .height = 1};
        if (closed_tree(p, &parts)->height > top->height) top->height = parts.height;
        n = chain ? n->c : NULL;
    }
    return top;
}

static node *parse_for(parser *p, int line)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    int which;
    node *n = tpl_node_new(p, N_FOR, line);
    n->name = tpl_name_id(p, "loop", 4);
    n->a = tpl_parse_target(p, "in", false);
    if (!tpl_skip_name(p, "in")) tpl_expect(p, T_EOF, "'in'");
    n->b = tpl_parse_tuple(p, 0, "recursive");
    if (tpl_skip_name(p, "if")) n->e = tpl_parse_expression(p, true);
    if (tpl_tok_is_name(cur(p), "recursive"))
        tpl_syntax(p, cur(p)->line,
                   "recursive loops are not supported: write a macro that calls itself");
    p->loops++;
    n->c = body(p, ends, &which);
    p->loops--;
    if (which == 1) n->d = body_until(p, "endfor");
    return closed_tree(p, n);
}

static node *parse_set(parser *p, int line)
{
    node *n = tpl_node_new(p, N_SET, line);
    n->a = tpl_parse_target(p, NULL, true);
    if (tpl_skip(p, T_ASSIGN)) {
        n->b = tpl_parse_tuple(p, TUPLE_COND, NULL);
        return closed_tree(p, n);
    }
    n->kind = N_SET_BLOCK;
    n->b = tpl_parse_filters(p, NULL, false);
    n->c = body_until(p, "endset");
    return closed_tree(p, n);
}

/* Parameters between parentheses: name, name=default ... */
static node *parse_signature(parser *p)
{
    node *first = NULL, **tail = &first;
    bool defaults = false;
    tpl_expect(p, T_LPAREN, "'('");
    while (cur(p)->type != T_RPAREN) {
        if (first) tpl_expect(p, T_COMMA, "','");
        const token *t = tpl_expect(p, T_NAME, "name");
        node *n = tpl_node_new(p, N_PARAM, t->line);
        n->name = tpl_name_id(p, t->v, t->n);
        if (tpl_skip(p, T_ASSIGN)) {
            n->a = tpl_parse_expression(p, true);
            defaults = true;
        } else if (defaults) {
            tpl_syntax(p, t->line, "non-default argument follows default argument");
        }
        *tail = n;
        tail = &n->next;
    }
    tpl_expect(p, T_RPAREN, "')'");
    return first;
}

/* A function body: loops outside do not count inside, and what it reads of its call is noted. */
static void macro_body(parser *p, node *n, const char *end)
{
    int loops = p->loops, uses = p->uses;
    p->loops = p->uses = 0;
    n->c = body_until(p, end);
    n->op = p->uses;
    p->loops = loops;
    p->uses |= uses;
    closed_tree(p, n);
}

static node *parse_macro(parser *p, int line)
{
    const token *t = tpl_expect(p, T_NAME, "name");
    node *n = tpl_node_new(p, N_MACRO, line);
    n->name = tpl_name_id(p, t->v, t->n);
    n->a = parse_signature(p);
    macro_body(p, n, "endmacro");
    return n;
}

static node *parse_call_block(parser *p, int line)
{
    node *n = tpl_node_new(p, N_CALL_BLOCK, line), *m = tpl_node_new(p, N_MACRO, line);
    if (cur(p)->type == T_LPAREN) m->a = parse_signature(p);
    n->a = tpl_parse_expression(p, true);
    if (n->a->kind != N_CALL) tpl_syntax(p, line, "expected call");
    m->name = tpl_name_id(p, "caller", 6);
    macro_body(p, m, "endcall");
    n->b = m;
    return closed_tree(p, n);
}

static node *parse_filter_block(parser *p, int line)
{
    node *n = tpl_node_new(p, N_FILTER_BLOCK, line);
    n->b = tpl_parse_filters(p, NULL, true);
    n->c = body_until(p, "endfilter");
    return closed_tree(p, n);
}

static node *parse_with(parser *p, int line)
{
    node *n = tpl_node_new(p, N_WITH, line), **tail = &n->a;
    while (cur(p)->type != T_BLOCK_END) {
        if (n->a) tpl_expect(p, T_COMMA, "','");
        *tail = tpl_parse_target(p, NULL, false);
        tail = &(*tail)->next;
        tpl_expect(p, T_ASSIGN, "'='");
        *tail = tpl_parse_expression(p, true);
        tail = &(*tail)->next;
    }
    n->c = body_until(p, "endwith");
    return closed_tree(p, n);
}

static node *parse_print(parser *p, int line)
{
    node *first = NULL, **tail = &first;
    while (cur(p)->type != T_BLOCK_END) {
        if (first) tpl_expect(p, T_COMMA, "','");
        node *n = tpl_node_new(p, N_PRINT, line);
        n->a = tpl_parse_expression(p, true);
        *tail = closed_tree(p, n);
        tail = &n->next;
    }
    return first;
}

static node *parse_generation(parser *p, int line)
{
    int loops = p->loops;
    node *n = tpl_node_new(p, N_SCOPE, line);
    p->loops = 0; /* its body is a function of its own, as a call block's */
    n->c = body_until(p, "endgeneration");
    p->loops = loops;
    return closed_tree(p, n);
}

static node *parse_loop_control(parser *p, int line, node_kind k)
{
    if (!p->loops) tpl_syntax(p, line, "'%s' outside loop", k == N_BREAK ? "break" : "continue");
    return tpl_node_new(p, k, line);
}

static node *parse_statement(parser *p)
{
    static const char *const other_files[] = {"include", "import", "from",
                                              "extends", "block",  "autoescape"};
    const token *t = cur(p);
    if (t->type != T_NAME) tpl_syntax(p, t->line, "tag name expected");
    advance(p);
    if (tpl_tok_is_name(t, "if")) return parse_if(p, t->line);
    if (tpl_tok_is_name(t, "for")) return parse_for(p, t->line);
    if (tpl_tok_is_name(t, "set")) return parse_set(p, t->line);
    if (tpl_tok_is_name(t, "macro")) return parse_macro(p, t->line);
    if (tpl_tok_is_name(t, "call")) return parse_call_block(p, t->line);
    if (tpl_tok_is_name(t, "filter")) return parse_filter_block(p, t->line);
    if (tpl_tok_is_name(t, "with")) return parse_with(p, t->line);
    if (tpl_tok_is_name(t, "print")) return parse_print(p, t->line);
    if (tpl_tok_is_name(t, "generation")) return parse_generation(p, t->line);
    if (tpl_tok_is_name(t, "break")) return parse_loop_control(p, t->line, N_BREAK);
    if (tpl_tok_is_name(t, "continue")) return parse_loop_control(p, t->line, N_CONTINUE);
    for (size_t i = 0; i < sizeof other_files / sizeof *other_files; i++)
        if (tpl_tok_is_name(t, other_files[i]))
            tpl_syntax(p, t->line, "'%s' is not supported: a chat template stands alone",
                       other_files[i]);
    tpl_syntax(p, t->line, "Encountered unknown tag '%.*s'.", (int)(t->n < 60 ? t->n : 60), t->v);
}

static node *text_node(parser *p, const token *t)
{
    node *n = tpl_node_new(p, N_TEXT, t->line);
    n->k = v_str(tpl_str_new(&p->c, t->v, t->n, OPEN));
    return n;
}

static bool is_end(const parser *p, const char *const *end)
{
    for (; end && *end; end++)
        if (tpl_tok_is_name(cur(p), *end)) return true;
    return false;
}

static node *parse_block(parser *p, const char *const *end)
{
    node *first = NULL, **tail = &first;
    tpl_enter(p, cur(p)->line);
    while (cur(p)->type != T_EOF) {
        const token *t = advance(p);
        if (t->type == T_DATA) {
            *tail = text_node(p, t);
        } else if (t->type == T_VAR_BEGIN) {
            node *n = tpl_node_new(p, N_PRINT, t->line);
            n->a = tpl_parse_tuple(p, TUPLE_COND, NULL);
            tpl_expect(p, T_VAR_END, "end of print statement");
            *tail = closed_tree(p, n);
        } else {
            if (is_end(p, end)) break;
            const char *outer = p->open_tag;
            char tag[32];
            snprintf(tag, sizeof tag, "%.*s", (int)(cur(p)->n < 31 ? cur(p)->n : 31), cur(p)->v);
            p->open_tag = tag;
            *tail = parse_statement(p);
            p->open_tag = outer;
            tpl_expect(p, T_BLOCK_END, "end of statement block");
        }
        while (*tail) tail = &(*tail)->next;
    }
    tpl_leave(p);
    return first;
}

node *tpl_parse_template(parser *p)
{
    node *n = parse_block(p, NULL);
    if (cur(p)->type != T_EOF) tpl_syntax(p, cur(p)->line, "unexpected tag");
    return n;
}

/* ---- public ---------------------------------------------------------------------------------- */

template *template_compile(const char *text, size_t n, err *e)
{
    if (n > MAX_TEMPLATE) {
        err_set(e, ERR_LIMIT, "the chat template has %zu bytes; at most %d are accepted", n,
                MAX_TEMPLATE);
        return NULL;
    }
    if (!utf8_valid(text, n)) {
        err_set(e, ERR_FORMAT, "the chat template is not valid UTF-8");
        return NULL;
    }
    template *t = calloc(1, sizeof *t);
    parser *p = calloc(1, sizeof *p);
    if (!t || !p) {
        free(t);
        free(p);
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    p->t = t;
    p->c.e = e;
    p->c.mem.limit = MAX_COMPILED;
    p->c.max_steps = UINT64_MAX;
    if (setjmp(p->c.fail)) {
        err_prefix(e, "chat template");
        arena_clear(&p->c.mem);
        free(p);
        free(t);
        return NULL;
    }
    t->text = arena_copy(&p->c.mem, text, n);
    if (!t->text) tpl_fail(&p->c, ERR_NOMEM, "out of memory");
    t->len = n;
    tpl_lex(p, t->text, n);
    t->body = tpl_parse_template(p);
    t->mem = p->c.mem;
    free(p);
    return t;
}

void template_free(template *t)
{
    if (!t) return;
    arena_clear(&t->mem);
    free(t);
}
