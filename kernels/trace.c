/* trace.c - see trace.h: --trace-ops and the lines it asks for.  Owns nothing.
 * Refuses: operations it does not know.  Thread: as a backend, see kernels.h. */
#include "kernels/trace.h"
#include "base/log.h"
#include "kernels/formats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const traced[] = {"embed",      "gather_rows", "linear",      "rms_norm",
                                     "glu",        "add",         "rope_rows",   "rope_store",
                                     "attn_paged", "rope_attn",   "norm_linear", "norm_glu",
                                     "linear_add", "all_reduce"};

static bool trace_number(const char **s, int *v)
{
    char *end;
    if (**s == '*') {
        *v = -1;
        (*s)++;
        return true;
    }
    long n = strtol(*s, &end, 10);
    if (end == *s || n < 0 || n > INT32_MAX) return false;
    *v = (int)n;
    *s = end;
    return true;
}

int k_trace(backend *be, const char *spec, err *e)
{
    size_t n = strcspn(spec, ",");
    bool known = n == 1 && *spec == '*';
    be->trace.layer = be->trace.step = -1;
    be->trace.op[0] = 0;
    for (size_t i = 0; i < sizeof traced / sizeof *traced; i++) {
        if (strlen(traced[i]) != n || strncmp(traced[i], spec, n)) continue;
        memcpy(be->trace.op, traced[i], n + 1);
        known = true;
    }
    const char *s = spec + n;
    bool ok = known && (!*s || (*s++ == ',' && trace_number(&s, &be->trace.layer)));
    ok = ok && (!*s || (*s++ == ',' && trace_number(&s, &be->trace.step) && !*s));
    if (!ok)
        return err_set(
            e, ERR_INVALID,
            "--trace-ops is '%.60s'; it takes OP[,LAYER[,STEP]] with OP one of *, embed, "
            "gather_rows, linear, rms_norm, glu, add, rope_rows, rope_store, attn_paged, "
            "rope_attn, "
            "norm_linear, norm_glu, linear_add, all_reduce, and numbers or *",
            spec);
    be->trace.on = true;
    be->trace.at_layer = be->trace.at_step = -1;
    return 0;
}

void k_trace_step(backend *be)
{
    be->trace.at_step++;
    be->trace.at_layer = -1;
}

void k_trace_layer(backend *be, int layer)
{
    be->trace.at_layer = layer;
}

/* Row r of y as f32 in row[y.cols]; also copies it to the host. */
static void trace_row(backend *be, tensor y, int r, float *row)
{
    size_t size = y.type == ACT_BF16 ? 2 : 4;
    k_download(be, row, (char *)y.ptr + (size_t)r * (size_t)y.ld * size, (size_t)y.cols * size);
    if (y.type != ACT_BF16) return;
    const uint16_t *h = (const uint16_t *)(const void *)row;
    for (int c = y.cols; c-- > 0;) { /* in place, from the end */
        uint16_t v;
        memcpy(&v, h + c, sizeof v);
        row[c] = bf16_to_f32(v);
    }
}

static void trace_values(const char *op, backend *be, tensor y)
{
    double low = INFINITY, high = -INFINITY, squares = 0;
    long n_nan = 0, n_inf = 0;
    float *row = malloc((size_t)y.cols * sizeof *row), f[4] = {0};
    if (!row) return;
    for (int r = 0; r < y.rows; r++) {
        trace_row(be, y, r, row);
        for (int c = 0; r == 0 && c < 4; c++) f[c] = row[c < y.cols ? c : 0];
        for (int c = 0; c < y.cols; c++) {
            double v = row[c];
            n_nan += isnan(v) != 0;
            n_inf += isinf(v) != 0;
            if (!isfinite(v)) continue;
            low = v < low ? v : low;
            high = v > high ? v : high;
            squares += v * v;
        }
    }
    free(row);
    double count = (double)y.rows * y.cols;
    log_info("trace step %d layer %d %s [%d, %d] min %.6g max %.6g rms %.6g nan %ld inf %ld first "
             "%.6g %.6g %.6g %.6g",
             be->trace.at_step, be->trace.at_layer, op, y.rows, y.cols, low, high,
             sqrt(squares / count), n_nan, n_inf, (double)f[0], (double)f[1], (double)f[2],
             (double)f[3]);
}

void trace_output(backend *be, const char *op, tensor y)
{
    if (!be->trace.on || (be->trace.op[0] && strcmp(be->trace.op, op))) return;
    if (be->trace.layer >= 0 && be->trace.layer != be->trace.at_layer) return;
    if (be->trace.step >= 0 && be->trace.step != be->trace.at_step) return;
    err e = {0};
    if (be->op->sync(be, &e)) return;
    if (y.type != ACT_Q8) trace_values(op, be, y);
    else
        log_info("trace step %d layer %d %s [%d, %d] 8-bit records", be->trace.at_step,
                 be->trace.at_layer, op, y.rows, y.cols);
}
