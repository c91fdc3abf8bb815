/* backend.c - the back end "cpu": owns its thread pool, the choice of instruction set, memory on
 * huge pages, and the table of ops.
 * Refuses: instruction sets this machine or its system lacks, thread counts out of range.
 * Thread: as a backend. */
#include "kernels/backend.h"

#include "base/log.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/simd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- memory -------------------------------------------------------------------------------------
 */

/* From this size on memory is mapped by itself, on 2 MiB pages where the system gives them: with
 * 4 KiB pages the page walks cost 5-7 % of a decode. */
static const size_t HUGE_PAGE = 2u << 20;

static size_t mapped_bytes(size_t bytes)
{
    return (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

/* Maps one page too much and gives back what is around the aligned part. */
static void *map_aligned(size_t bytes)
{
    size_t len = mapped_bytes(bytes);
    char *p =
        mmap(NULL, len + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = (HUGE_PAGE - ((uintptr_t)p & (HUGE_PAGE - 1))) & (HUGE_PAGE - 1);
    if (before) munmap(p, before);
    if (before < HUGE_PAGE) munmap(p + before + len, HUGE_PAGE - before);
    (void)madvise(p + before, len, MADV_HUGEPAGE); /* a wish: without it all works, slower */
    return p + before;
}

static void *cpu_alloc(backend *be, size_t bytes)
{
    (void)be;
    if (bytes > SIZE_MAX - 2 * HUGE_PAGE) return NULL;
    if (bytes >= HUGE_PAGE) return map_aligned(bytes);
    size_t len = (bytes + 63) & ~(size_t)63;
    void *p = aligned_alloc(64, len ? len : 64);
    if (p) memset(p, 0, len);
    return p;
}

static void cpu_release(backend *be, void *p, size_t bytes)
{
    (void)be;
    if (!p) return;
    if (bytes >= HUGE_PAGE) munmap(p, mapped_bytes(bytes));
    else free(p);
}

/* Ops are done when they return. */
static int cpu_sync(backend *be, err *e)
{
    (void)be, (void)e;
    return 0;
}

/* ---- instruction sets
 * ----------------------------------------------------------------------------- */

static const char *const isa_names[ISA_COUNT] = {"portable", "avx2", "avxvnni", "avx512"};

static bool has_isa(cpu_isa isa)
{
    switch (isa) {
    case ISA_AVX512: return machine_has_avx512();
    case ISA_AVXVNNI: return machine_has_avxvnni();
    case ISA_AVX2: return machine_has_avx2();
    default: return true;
    }
}

static cpu_isa best_isa(void)
{
    int isa = ISA_COUNT - 1;
    while (!has_isa((cpu_isa)isa)) isa--;
    return (cpu_isa)isa;
}

/* "auto", NULL or a name of isa_names. */
static int choose_isa(const char *name, cpu_isa *isa, err *e)
{
    *isa = best_isa();
    if (!name || !strcmp(name, "auto")) return 0;
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(name, isa_names[i])) continue;
        if (!has_isa((cpu_isa)i))
            return err_set(e, ERR_UNSUPPORTED,
                           "--cpu-isa %s: this machine lacks it; the best it has is %s", name,
                           isa_names[*isa]);
        *isa = (cpu_isa)i;
        return 0;
    }
    return err_set(e, ERR_INVALID,
                   "--cpu-isa '%.40s' is unknown; accepted: auto, avx512, avxvnni, avx2, portable",
                   name);
}

static void bind_isa(cpu_state *s)
{
    switch (s->isa) {
    case ISA_AVX512:
        s->rows = &cpu_rows_avx512;
        s->attn = &attn_ops_avx512;
        s->sample = &sample_ops_avx512;
        break;
    case ISA_AVXVNNI:
    case ISA_AVX2:
        s->rows = &cpu_rows_avx2;
        s->attn = &attn_ops_avx2;
        s->sample = &sample_ops_avx2;
        break;
    default:
        s->rows = &cpu_rows_portable;
        s->attn = &attn_ops_portable;
        s->sample = &sample_ops_portable;
        log_warn("cpu: running plain C without AVX2: expect a tenth of the speed or less");
    }
}

/* ---- opening
 * -------------------------------------------------------------------------------------- */

static const backend_ops cpu_ops = {.name = "cpu",
                                    .alloc = cpu_alloc,
                                    .release = cpu_release,
                                    .upload_weight = cpu_upload_weight,
                                    .release_weight = cpu_release_weight,
                                    .weight_bytes = cpu_weight_bytes,
                                    .kv_block_bytes = cpu_kv_block_bytes,
                                    .sync = cpu_sync,
                                    .embed = cpu_embed,
                                    .gather_rows = cpu_gather_rows,
                                    .linear = cpu_linear,
                                    .rms_norm = cpu_rms_norm,
                                    .glu = cpu_glu,
                                    .add = cpu_add,
                                    .rope_rows = cpu_rope_rows,
                                    .rope_store = cpu_rope_store,
                                    .attn_paged = cpu_attn_paged,
                                    .pool = host_pool,
                                    .norm_linear = cpu_norm_linear,
                                    .norm_glu = cpu_norm_glu,
                                    .linear_add = cpu_linear_add,
                                    .glu_out_q8 = cpu_glu_out_q8,
                                    .sample = cpu_sample,
                                    .split_best = cpu_split_best,
                                    .split_mass = cpu_split_mass};

void cpu_close(backend *be)
{
    if (!be) return;
    cpu_state *s = cpu_of(be);
    if (s) {
        cpu_linear_close(be);
        sample_work_free(s->sample_work);
        attn_work_free(s->attn_work);
        pool_free(s->pool);
    }
    free(s);
    free(be);
}

backend *cpu_open(const backend_options *o, err *e)
{
    cpu_isa isa;
    if (choose_isa(o->isa, &isa, e)) return NULL;
    backend *be = calloc(1, sizeof *be);
    cpu_state *s = calloc(1, sizeof *s);
    if (!be || !s) {
        free(s);
        goto no_memory;
    }
    be->op = &cpu_ops;
    be->state = s;
    be->kv_block = CPU_KV_BLOCK;
    be->invariant = true;
    be->threads = o->threads ? o->threads : backend_cores();
    if (!o->threads && be->threads > POOL_MAX_THREADS) be->threads = POOL_MAX_THREADS;
    snprintf(be->isa, sizeof be->isa, "%s", isa_names[isa]);
    s->isa = isa;
    s->bf16_repack = o->bf16_repack;
    bind_isa(s);
    s->pool = pool_new(be->threads, e);
    if (!s->pool) goto fail;
    s->attn_work = attn_work_new(be->threads);
    s->sample_work = sample_work_new(be->threads);
    if (s->attn_work && s->sample_work) return be;
no_memory:
    err_set(e, ERR_NOMEM, "out of memory for the cpu back end");
fail:
    cpu_close(be);
    return NULL;
}
