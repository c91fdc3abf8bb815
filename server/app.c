/* app.c - served names and readiness; see app.h.  Any thread. */
#include "server/app.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *match(const app *a, const char *name, size_t n, bool exact)
{
    for (int i = 0; i < a->names.n; i++) {
        const char *alias = a->names.v[i];
        if (strlen(alias) != n) continue;
        if (exact ? !strncmp(alias, name, n) : !strncasecmp(alias, name, n)) return alias;
    }
    return NULL;
}

const char *app_match_model(const app *a, const char *name)
{
    static const char latest[] = ":latest";
    if (!name || !*name) return a->names.v[0];
    size_t n = strlen(name), k = sizeof latest - 1;
    const char *hit = match(a, name, n, true);
    if (!hit) hit = match(a, name, n, false);
    if (!hit && n > k && !strcmp(name + n - k, latest)) hit = match(a, name, n - k, false);
    for (int i = 0; i < a->names.n && !hit; i++) {
        size_t stem = strcspn(a->names.v[i], "*");
        if (a->names.v[i][stem] == '*' && !strncasecmp(a->names.v[i], name, stem)) hit = name;
    }
    if (!hit && a->opt->any_model) hit = a->names.v[0];
    return hit;
}

void app_model_size(const app *a, char out[32])
{
    double n = (double)engine_info(a->eng)->n_params;
    if (n >= 1e9) snprintf(out, 32, "%.1fB", n / 1e9);
    else snprintf(out, 32, "%.2fM", n / 1e6);
}

int app_not_ready(const app *a, const char **code, const char **msg)
{
    switch (engine_status(a->eng)) {
    case ENGINE_LOADING:
        *code = "model_loading";
        *msg = "the model is still loading";
        return 503;
    case ENGINE_FAILED:
        *code = "internal_error";
        *msg = "the engine failed, see log";
        return 500;
    case ENGINE_READY:
        if (!atomic_load(&a->draining)) return 0;
        break;
    case ENGINE_DRAINING: break;
    }
    *code = "shutting_down";
    *msg = "the server is shutting down";
    return 503;
}
