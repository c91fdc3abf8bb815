/* generation_config.c - sampling defaults a checkpoint asks for; see generation_config.h.
 * Owns nothing.  Refuses: values outside the ranges a request may use.  Thread: the caller's. */
#include "config/generation_config.h"

bool generation_config_add_eos(generation_config *g, int64_t id)
{
    for (int i = 0; i < g->n_eos; i++)
        if (g->eos[i] == id) return true;
    if (g->n_eos == (int)(sizeof g->eos / sizeof g->eos[0])) return false;
    g->eos[g->n_eos++] = (int32_t)id;
    return true;
}

static void add_eos(fields *f, generation_config *g, const json *j)
{
    int64_t id;
    if (!json_int(j, &id) || id < 0 || id > INT32_MAX)
        fields_fault(f, "eos_token_id", j, "a token id or a list of them");
    else if (!generation_config_add_eos(g, id))
        fields_fault(f, "eos_token_id", NULL, "at most 16 different token ids");
}

void generation_config_read_ids(fields *f, generation_config *g, bool replace_eos)
{
    int64_t id;
    const json *eos = fields_get(f, "eos_token_id");
    if (eos && replace_eos) g->n_eos = 0;
    if (json_is(eos, JSON_ARRAY))
        for (const json *j = eos->child; j; j = j->next) add_eos(f, g, j);
    else if (eos) add_eos(f, g, eos);
    if (fields_int(f, "pad_token_id", -1, INT32_MAX, &id)) g->pad = (int32_t)id;
    if (fields_int(f, "bos_token_id", -1, INT32_MAX, &id)) g->bos = (int32_t)id;
}

void generation_config_read(fields *f, generation_config *g, bool replace_eos)
{
    generation_config_read_ids(f, g, replace_eos);
    g->has_temperature |= fields_num(f, "temperature", 0, 2, &g->temperature);
    g->has_top_p |= fields_num(f, "top_p", 0, 1, &g->top_p);
    g->has_top_k |= fields_int(f, "top_k", -1, INT32_MAX, &g->top_k);
    g->has_min_p |= fields_num(f, "min_p", 0, 1, &g->min_p);
    g->has_repetition |= fields_num(f, "repetition_penalty", 0.01, 10, &g->repetition);
    g->has_presence |= fields_num(f, "presence_penalty", -2, 2, &g->presence);
    g->has_frequency |= fields_num(f, "frequency_penalty", -2, 2, &g->frequency);
    g->has_do_sample |= fields_bool(f, "do_sample", &g->do_sample);
}
