/* dummy.c - a model without weights: the tensors its architecture needs, by the rule table, and
 * values made up from their names.  The values of matrices are kernels/dummy.c's.
 * Owns nothing.  Refuses: configs we do not run, types whose blocks do not divide a row (naming the
 * row).  Thread: any. */
#include "engine/engine_open.h"
#include "engine/models/models.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { NAME_CAP = 128 };

typedef struct {
    checkpoint *c;
    const model_config *conf;
    int type;
    ckpt_tensor *t; /* [n], names allocated */
    size_t n, cap;
} tensor_list;

static int add(tensor_list *l, const rule *r, int at, const char *suffix, err *e)
{
    char name[NAME_CAP];
    bool matrix = r->kind == RULE_MATRIX && !strcmp(suffix, "weight");
    arch_tensor_name(r, false, at, suffix, name, sizeof name);
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        ckpt_tensor *t = realloc(l->t, cap * sizeof *t);
        if (!t) return err_set(e, ERR_NOMEM, "out of memory for tensors");
        l->t = t;
        l->cap = cap;
    }
    ckpt_tensor *t = &l->t[l->n];
    *t = (ckpt_tensor){.name = strdup(name),
                       .type = matrix ? l->type : DT_F32,
                       .n_dims = matrix ? 2 : 1,
                       .dim = {dim_value(l->conf, r->shape[0]), 1, 1, 1}};
    if (matrix) t->dim[1] = dim_value(l->conf, r->shape[1]);
    if (!t->name) return err_set(e, ERR_NOMEM, "out of memory for tensors");
    l->n++;
    return 0;
}

static int add_rule(tensor_list *l, const rule *r, int at, err *e)
{
    bool head = !r->per_layer && r->slot == offsetof(globals, head);
    if (head && l->conf->tied) return 0;
    int rc = add(l, r, at, "weight", e);
    bool bias = r->bias == BIAS_NEEDED || (r->bias == BIAS_CONFIG && l->conf->qkv_bias);
    return rc || !bias ? rc : add(l, r, at, "bias", e);
}

int dummy_tensors(checkpoint *c, int type, err *e)
{
    tensor_list l = {.c = c, .conf = checkpoint_config(c), .type = type};
    if (!l.conf) return err_set(e, ERR_NOTFOUND, "there is no config.json");
    const arch *a = arch_find(l.conf, e);
    int rc = a ? 0 : e ? e->code : ERR_INVALID;
    for (int at = -1; !rc && at < (int)l.conf->layers; at++)
        for (const rule *r = a->rules; !rc && r->kind != RULE_END; r++)
            if (r->per_layer == (at >= 0)) rc = add_rule(&l, r, at, e);
    if (!rc) rc = checkpoint_set_tensors(c, l.t, l.n, e);
    for (size_t i = 0; i < l.n; i++) free((char *)(uintptr_t)l.t[i].name);
    free(l.t);
    return rc;
}

uint64_t dummy_seed(const ckpt_tensor *t)
{
    return XXH3_64bits(t->name, strlen(t->name));
}

void dummy_values(const ckpt_tensor *t, float *v)
{
    static const char bias[] = ".bias";
    size_t n = strlen(t->name), m = sizeof bias - 1;
    float middle = n > m && !strcmp(t->name + n - m, bias) ? 0 : 1;
    uint64_t seed = dummy_seed(t);
    for (int64_t i = 0; i < t->dim[0]; i++) {
        uint64_t h = XXH3_64bits_withSeed(&i, sizeof i, seed);
        v[i] = middle + 0.1f * ((float)(h >> 40) * 0x1p-23f - 1);
    }
}
