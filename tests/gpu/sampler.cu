/* sampler.cu - drawing from logits of 151,936 ids: time from the upload of the parameters to the
 * answer in host memory, for 1, 8 and 64 rows, and what the logits alone would take at the read
 * roof. */
#include "tests/gpu/bench_rig.h"

#include <math.h>

typedef struct {
    const char *name;
    float temp, top_p, min_p;
    int top_k, n_top;
} setting;
static const setting settings[] = {
    {"greedy", 0, 1, 0, 0, -1},
    {"temperature 1", 1, 1, 0, 0, -1},
    {"0.7, top_k 20, top_p 0.8", 0.7f, 0.8f, 0, 20, -1},
    {"1, top_p 0.95", 1, 0.95f, 0, 0, -1},
    {"1, min_p 0.05", 1, 1, 0.05f, 0, -1},
    {"2, top_p 0.95 (many kept)", 2, 0.95f, 0, 0, -1},
    {"greedy, 20 logprobs", 0, 1, 0, 0, 20},
};

int main(void)
{
    static const int counts[] = {1, 8, 64};
    bench b = bench_open("sampler");
    int most = b.small ? 8 : 64, n = b.small ? 5000 : 151936;
    batch_limits l = {};
    l.max_tok = l.max_seqs = l.max_out = most;
    l.max_blocks = 1;
    bench_reserve(&b, &l);
    size_t values = (size_t)most * (size_t)n;
    float *host = (float *)malloc(values * sizeof *host);
    tensor t = {k_alloc(b.be, values * sizeof *host), most, n, n, ACT_F32};
    sample_row *row = (sample_row *)calloc((size_t)most, sizeof *row);
    if (!host || !t.ptr || !row) {
        printf("no memory for %zu logits\n", values);
        return 1;
    }
    uint32_t state = 1; /* sums of four uniform numbers: about normal, deviation 2.3 */
    for (size_t i = 0; i < values; i++) {
        float v = 0;
        for (int k = 0; k < 4; k++) v += (float)((state = state * 1664525 + 1013904223) >> 8);
        host[i] = (v * 0x1p-24f - 2) * 4;
    }
    k_upload(b.be, t.ptr, host, values * sizeof *host);
    for (const setting &s : settings)
        for (int rows : counts) {
            if (rows > most) continue;
            for (int i = 0; i < rows; i++) {
                row[i] = {};
                row[i].temperature = s.temp;
                row[i].top_k = s.top_k;
                row[i].top_p = s.top_p;
                row[i].min_p = s.min_p;
                row[i].repetition = 1;
                row[i].n_vocab = n;
                row[i].position = (uint64_t)i;
                row[i].n_top = s.n_top;
                row[i].forced = -1;
            }
            k_sample(b.be, t, row, rows);
            bench_stop_on_fault(&b);
            double ms = bench_time(&b, [&] { k_sample(b.be, t, row, rows); });
            char what[80];
            snprintf(what, sizeof what, "%-28s %2d rows", s.name, rows);
            bench_line(what, ms, 4e-6 * rows * n / ms, "GB/s", b.read * 1e-9);
        }
    k_free(b.be, t.ptr, values * sizeof *host);
    free(host);
    free(row);
    return bench_close(&b);
}
