/* fields.c - typed members of a JSON object; see fields.h.  Owns nothing.  Thread: the caller's. */
#include "config/fields.h"

#include "base/buf.h"

#include <stdio.h>
#include <string.h>

const json *fields_get(const fields *f, const char *name)
{
    const json *j = json_get(f->o, name);
    return json_is(j, JSON_NULL) ? NULL : j;
}

void fields_fault(fields *f, const char *name, const json *found, const char *what)
{
    char got[80];
    if (f->rc || f->lenient) return;
    if (json_is(found, JSON_NUMBER)) snprintf(got, sizeof got, "%.64s", found->str);
    else if (json_is(found, JSON_STRING))
        snprintf(got, sizeof got, "the string \"%.48s\"", found->str);
    else snprintf(got, sizeof got, "%s", json_type_name(found));
    f->rc = err_set(f->e, ERR_INVALID, "%s: '%s%s' must be %s, got %s", f->where, f->in, name, what,
                    got);
}

void fields_need(fields *f, const char *name)
{
    if (f->rc || f->lenient || fields_get(f, name)) return;
    f->rc = err_set(f->e, ERR_INVALID, "%s: '%s%s' is missing", f->where, f->in, name);
}

bool fields_int(fields *f, const char *name, int64_t lo, int64_t hi, int64_t *v)
{
    const json *j = fields_get(f, name);
    int64_t x;
    if (!j || f->rc) return false;
    if (json_int(j, &x) && x >= lo && x <= hi) {
        *v = x;
        return true;
    }
    char what[96];
    snprintf(what, sizeof what, "a whole number between %lld and %lld", (long long)lo,
             (long long)hi);
    fields_fault(f, name, j, what);
    return false;
}

bool fields_num(fields *f, const char *name, double lo, double hi, double *v)
{
    const json *j = fields_get(f, name);
    if (!j || f->rc) return false;
    double x = json_num(j);
    if (j->type == JSON_NUMBER && x >= lo && x <= hi) {
        *v = x;
        return true;
    }
    char what[96];
    snprintf(what, sizeof what, "a number between %g and %g", lo, hi);
    fields_fault(f, name, j, what);
    return false;
}

bool fields_bool(fields *f, const char *name, bool *v)
{
    const json *j = fields_get(f, name);
    if (!j || f->rc) return false;
    if (json_is_bool(j)) {
        *v = j->type == JSON_TRUE;
        return true;
    }
    fields_fault(f, name, j, "true or false");
    return false;
}

void fields_only(fields *f, const char *const *list)
{
    if (f->rc || f->lenient) return;
    for (const json *j = f->o->child; j; j = j->next) {
        const char *const *name = list;
        while (*name && strcmp(*name, j->key) != 0) name++;
        if (*name) continue;
        buf all = {0};
        for (name = list; *name; name++) buf_printf(&all, "%s%s", name == list ? "" : ", ", *name);
        f->rc = err_set(f->e, ERR_INVALID, "%s: unknown field '%s%.48s'; accepted are %s", f->where,
                        f->in, j->key, buf_str(&all));
        buf_clear(&all);
        return;
    }
}
