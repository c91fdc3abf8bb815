/* prompts.c - see prompts.h.  Owns nothing. */
#include "server/prompts.h"

#include "server/raw_request.h"

#include <stdio.h>
#include <string.h>

static bool take(reader *r, const json *j, const char *param, const buf *before, token_list *out)
{
    if (!j->len) reader_fail(r, "invalid_value", param, "'%s' must not be empty", param);
    if (r->failed) return false;
    if (j->type == JSON_ARRAY) return raw_ids(r, param, j, false, out);
    if (!before) return raw_text(r, param, j->str, j->len, 0, out);
    buf both = {0};
    buf_put(&both, buf_str(before), before->len);
    buf_put(&both, j->str, j->len);
    bool ok = buf_ok(&both) && raw_text(r, param, buf_str(&both), both.len, 0, out);
    if (!buf_ok(&both)) reader_oom(r);
    buf_clear(&both);
    return ok;
}

/* What kind of members an array holds; JSON_NULL after failing. */
static json_type members(reader *r, const char *name, const json *j)
{
    if (!j->len) {
        reader_fail(r, "invalid_value", name, "'%s' must not be empty", name);
        return JSON_NULL;
    }
    json_type first = j->child->type;
    bool known = first == JSON_STRING || first == JSON_NUMBER || first == JSON_ARRAY;
    for (const json *i = j->child; i; i = i->next)
        if (i->type != first || !known) {
            reader_fail(r, "invalid_type", name,
                        "'%s' must hold only strings, only token ids or only arrays of token ids",
                        name);
            return JSON_NULL;
        }
    return first;
}

int prompts_count(reader *r, const char *name, const json *j, int max)
{
    if (!j) {
        reader_fail(r, "missing_required_parameter", name, "'%s' is required", name);
        return 0;
    }
    if (j->type == JSON_STRING) return 1;
    if (j->type != JSON_ARRAY) {
        reader_fail(r, "invalid_type", name,
                    "'%s' must be a string, an array of strings, or token ids, got %s", name,
                    json_type_name(j));
        return 0;
    }
    json_type kind = members(r, name, j);
    if (kind == JSON_NULL) return 0;
    if (kind == JSON_NUMBER) return 1;
    if (j->len > (size_t)max) {
        reader_fail(r, "invalid_value", name, "'%s' takes at most %d %ss, got %zu", name, max,
                    !strcmp(name, "prompt") ? "prompt" : "text", j->len);
        return 0;
    }
    return (int)j->len;
}

bool prompts_take(reader *r, const char *name, const json *j, const buf *before, token_list *out)
{
    if (j->type == JSON_STRING || j->child->type == JSON_NUMBER)
        return take(r, j, name, before, &out[0]);
    int i = 0;
    for (const json *m = j->child; m && !r->failed; m = m->next, i++) {
        char param[48];
        snprintf(param, sizeof param, "%.24s[%d]", name, i);
        take(r, m, param, before, &out[i]);
    }
    return !r->failed;
}
