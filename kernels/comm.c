/* comm.c - the sum every back end shares, and ending a comm.  Owns nothing.
 * Refuses nothing.  Thread: any. */
#include "kernels/comm.h"
#include "kernels/formats.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK = 256 }; /* values summed in registers and L1 before they are stored */

static void load(float *to, const void *x, size_t at, size_t n, act_type type)
{
    if (type == ACT_F32) {
        memcpy(to, (const float *)x + at, n * sizeof *to);
        return;
    }
    const uint16_t *h = (const uint16_t *)x + at;
    for (size_t i = 0; i < n; i++) to[i] = bf16_to_f32(h[i]);
}

static void store(void *x, const float *from, size_t at, size_t n, act_type type)
{
    if (type == ACT_F32) {
        memcpy((float *)x + at, from, n * sizeof *from);
        return;
    }
    uint16_t *h = (uint16_t *)x + at;
    for (size_t i = 0; i < n; i++) h[i] = f32_to_bf16(from[i]);
}

void comm_sum(void *dst, const void *const *src, int world, size_t n, act_type type)
{
    float sum[CHUNK], x[CHUNK] = {0};
    assert(type == ACT_F32 || type == ACT_BF16);
    for (size_t at = 0; at < n; at += CHUNK) {
        size_t m = n - at < CHUNK ? n - at : CHUNK;
        load(sum, src[0], at, m, type);
        for (size_t i = m; i < CHUNK; i++) sum[i] = 0;
        for (int r = 1; r < world; r++) {
            load(x, src[r], at, m, type);
            for (int i = 0; i < CHUNK; i++) sum[i] += x[i]; /* of constant length: in vectors */
        }
        store(dst, sum, at, m, type);
    }
}

void comm_close(comm *c)
{
    if (c) c->op->close(c);
}

void comm_abort(comm *c, const char *fmt, ...)
{
    char why[160];
    va_list ap;
    int n = snprintf(why, sizeof why, "rank %d: ", c->rank);
    va_start(ap, fmt);
    vsnprintf(why + n, sizeof why - (size_t)n, fmt, ap);
    va_end(ap);
    c->op->abort(c, why);
}
