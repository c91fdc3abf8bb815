/* fields.h - reads the members of one JSON object (config.json, rope_scaling, ...) with their types
 * and ranges.  The first fault latches in rc and later calls do nothing, so that a list of fields
 * needs one check at its end.  Internal to config/.  Thread: the caller's. */
#ifndef QUERN_CONFIG_FIELDS_H
#define QUERN_CONFIG_FIELDS_H

#include "base/err.h"
#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const json *o;     /* the object */
    const char *where; /* begins every message: "config.json", "--rope-scaling" */
    const char *in;    /* path of the object inside it: "", "rope_scaling." */
    bool lenient;      /* a fault leaves the value as it was instead */
    int rc;            /* 0 or the first fault */
    err *e;
} fields;

/* Member `name`; null counts as absent (NULL). */
const json *fields_get(const fields *f, const char *name);
/* Each leaves *v alone when the member is absent; the result says whether it was there and good. */
bool fields_int(fields *f, const char *name, int64_t lo, int64_t hi, int64_t *v);
bool fields_num(fields *f, const char *name, double lo, double hi, double *v);
bool fields_bool(fields *f, const char *name, bool *v);
/* Latches "'name' is missing" if it is. */
void fields_need(fields *f, const char *name);
/* Latches a fault of member `name`: "where: 'in.name' must be <what>, got <found>". */
void fields_fault(fields *f, const char *name, const json *found, const char *what);
/* Every member must be one of the names in list (NULL-terminated). */
void fields_only(fields *f, const char *const *list);

#endif
